"""Rotations that end anywhere, any number of times, while others interfere: what the plan makes of it."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamplighter.keys.errors import Busy, Held, MinterUnfit, MintUnknown, NotProven, PolicyError
from lamplighter.keys.naming import Naming
from unit.keys.simulation import LINEAGE, World, adopted, finish, go, rotation

SINKS = st.lists(st.sampled_from("RW"), min_size=1, max_size=3).map(
    lambda letters: [f"{letter}{number}" for number, letter in enumerate(letters)]
)


def world_with(addresses: list[str]) -> World:
    world = World()
    adopted(world, addresses)
    return world


def assert_settled(world: World, addresses: list[str]) -> None:
    """I1 and I2 at the end: one live key besides the minter's, and every sink holds it."""
    lineage = world.state().lineage(LINEAGE)
    assert world.wrong == []
    assert not lineage.unfinished
    assert set(world.live) == {1, lineage.current}
    assert {world.key_in(each) for each in addresses} == {lineage.current}


@settings(max_examples=300)
@given(
    addresses=SINKS,
    crashes=st.lists(st.integers(0, 40), max_size=5),
    drops=st.lists(st.sampled_from(["POST", "DELETE"]), max_size=2),
    soak=st.sampled_from([0.0, 100.0]),
)
def test_however_often_it_ends_recovery_settles_it(
    addresses: list[str], crashes: list[int], drops: list[str], soak: float
) -> None:
    """Any number of crashes in a row, at any steps, with lost answers: I1 at every step, I2 at the end."""
    world = world_with(addresses)
    world.drops = drops
    for number, left in enumerate(crashes):
        # Two lost answers in one run are the end of that run.
        with contextlib.suppress(MintUnknown):
            go(world, addresses, "recover" if number else "run", left=left, soak=soak)
    with contextlib.suppress(MintUnknown):
        finish(world, addresses, soak=soak)
    finish(world, addresses, soak=soak)
    assert_settled(world, addresses)


@settings(max_examples=150)
@given(addresses=SINKS, crashes=st.lists(st.integers(0, 40), max_size=3))
def test_the_first_key_of_a_lineage(addresses: list[str], crashes: list[int]) -> None:
    """Without an old key a crash leaves no key, or one that all sinks hold."""
    world = World(live={1: "the minter"})
    for number, left in enumerate(crashes):
        go(world, addresses, "recover" if number else "run", left=left)
    finish(world, addresses)
    assert world.wrong == []
    lineage = world.state().lineage(LINEAGE)
    assert set(world.live) == {1} | ({lineage.current} if lineage.current else set())
    assert {world.key_in(each) for each in addresses} == {lineage.current}


@settings(max_examples=200)
@given(
    addresses=SINKS,
    crash=st.integers(0, 40),
    gone=st.sampled_from(["old", "new", "both"]),
    again=st.booleans(),
)
def test_keys_that_somebody_else_revokes(addresses: list[str], crash: int, gone: str, again: bool) -> None:
    """Whatever was taken away meanwhile, in the end the sinks hold a working key if a new one was under way."""
    world = world_with(addresses)
    go(world, addresses, left=crash)
    world.alone = False
    for key_id in list(world.live):
        if (key_id == 2 and gone != "new") or (key_id > 2 and gone != "old"):
            del world.live[key_id]
    go(world, addresses, "run" if again else "recover")
    lineage = world.state().lineage(LINEAGE)
    assert not lineage.unfinished
    assert set(world.live) <= {1, lineage.current}
    if again:
        assert {world.key_in(each) for each in addresses} == {lineage.current}
        assert lineage.current in world.live


@settings(max_examples=150)
@given(addresses=SINKS, crash=st.integers(0, 40), data=st.data())
def test_a_sink_that_somebody_else_wrote_to_never_loses_its_key(
    addresses: list[str], crash: int, data: st.DataObject
) -> None:
    """The old key, put back by hand into a sink that can be read, is not revoked while it is there."""
    world = world_with(addresses)
    go(world, addresses, left=crash)
    victim = data.draw(st.sampled_from(addresses))
    if 2 not in world.live or victim.startswith("W"):
        return
    world.contents[victim] = world.values[2]
    try:
        go(world, addresses, "run")
    except NotProven:
        assert 2 in world.live
    held = world.key_in(victim)
    assert held in world.live


def test_each_machine_sees_the_other() -> None:
    """Two journals, one account: a key of the lineage that is not ours stops us before we mint."""
    mine, sinks = world_with(["R0"]), ["R0"]
    mine.live[7] = Naming(LINEAGE).name(rid="bbbbbbbbbb", at=mine.records[0].at)
    mine.values[7] = b"value-7"
    with pytest.raises(Busy) as raised:
        go(mine, sinks)
    assert raised.value.key_id == 7
    assert mine.posted == []
    assert go(mine, sinks, take_over=True)
    assert mine.state().lineage(LINEAGE).current in mine.live
    assert 7 in mine.live


def test_of_two_machines_at_once_the_lower_id_wins() -> None:
    """Both saw nothing and minted: who has the higher id withdraws it, and no sink was touched."""
    world, sinks = world_with(["R0", "W1"]), ["R0", "W1"]

    def other(event: object) -> None:
        if world.posted:
            return
        world.live[5], world.values[5] = Naming(LINEAGE).name(rid="cccccccccc", at=world.records[0].at), b"value-5"

    with pytest.raises(Busy) as raised:
        rotation(world, sinks, before=other).run()
    assert raised.value.key_id == 5
    assert set(world.live) == {1, 2, 5}
    assert {world.key_in(each) for each in sinks} == {2}


def test_a_key_in_use_is_held_and_goes_once_it_is_not() -> None:
    """What is used during the soak stays, and its addresses are said; after a quiet soak it goes."""
    world, sinks = world_with(["R0"]), ["R0"]

    def use(event: object) -> None:
        if getattr(event, "step", "") == "soak":
            world.used[2] = f"at {world.seconds}"

    with pytest.raises(Held) as raised:
        rotation(world, sinks, soak=60.0, before=use).run()
    assert raised.value.addresses == ("192.0.2.7",)
    assert 2 in world.live
    finish(world, sinks)
    assert_settled(world, sinks)


def test_a_clock_that_was_set_back_does_not_make_a_soak_endless() -> None:
    world, sinks = world_with(["W0"]), ["W0"]
    waiting = rotation(world, sinks, soak=60.0, wait=False).run()
    assert waiting.state == "soaking"
    world.seconds = -1e7
    again = rotation(world, sinks, wait=False).recover()
    assert again.until is not None
    assert waiting.until is not None
    assert again.until < waiting.until
    world.seconds += 61
    assert rotation(world, sinks, wait=False).recover().state == "done"


def test_posts_without_an_answer_come_to_an_end() -> None:
    """Every POST acts and none is answered: no key is left, and the names stay on the watch list."""
    world, sinks = world_with(["W0"]), ["W0"]
    world.drops = ["POST"] * 9
    with pytest.raises(MintUnknown):
        go(world, sinks)
    assert set(world.live) == {1, 2}
    assert not world.state().lineage(LINEAGE).unfinished


def test_a_key_that_appears_late_is_revoked_when_it_does() -> None:
    """A POST was given up for lost, and took effect after all."""
    world, sinks = world_with(["W0"]), ["W0"]
    go(world, sinks, left=2)
    finish(world, sinks)
    (late,) = world.state().lineage(LINEAGE).watched
    world.live[9], world.values[9] = late, b"value-9"
    finish(world, sinks)
    assert set(world.live) == {1, 2}


def test_a_sink_left_out_stops_the_rotation_before_it_begins() -> None:
    """It may hold the old key, and would be without a working one."""
    world = world_with(["R0", "W1"])
    with pytest.raises(PolicyError, match="W1"):
        go(world, ["R0"])
    assert world.posted == []


def test_the_key_we_work_with_is_replaced_by_signing_in_with_the_new_one() -> None:
    """The minter rotates itself: the new minter revokes the old one."""
    world = World(live={1: "the minter"})
    _adopt_minter(world, mac=None)
    with pytest.raises(MinterUnfit):
        rotation(world, ["R0"]).run()
    assert 1 in world.live
    world = World(live={1: "the minter"})
    _adopt_minter(world, mac="known")
    assert rotation(world, ["R0"]).run().revoked == (1,)
    assert world.key_in("R0") in world.live


def _adopt_minter(world: World, *, mac: str | None) -> None:
    world.live[2], world.values[2] = "the minter", world.values[1]
    adopted(world, ["R0"])
    del world.live[2], world.values[2]
    record = world.records[0]
    world.records[0] = type(record)(
        **{name: getattr(record, name) for name in ("at", "lineage", "scope", "sinks")},
        key_id=1,
        name="the minter",
        mac=record.mac if mac else None,
    )
