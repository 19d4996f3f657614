"""What a rotation does when something around it fails, and what it tells."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from lamplighter.keys import records as rec
from lamplighter.keys.errors import (
    Held,
    MinterUnfit,
    MintUnknown,
    NotProven,
    PolicyError,
    SinkRefused,
    SinkUnreachable,
    WrongScope,
)
from lamplighter.keys.fold import Lineage
from lamplighter.keys.journal import Journal
from lamplighter.keys.manager import Manager, Target
from lamplighter.keys.naming import Naming
from lamplighter.keys.neon import Identity, MintedKey
from lamplighter.keys.plan import LiveKey
from lamplighter.keys.records import Scope
from lamplighter.keys.rotate import Event, Outcome, Rotation
from lamplighter.keys.sinks.base import Receipt
from lamplighter.keys.sinks.registry import parse_sink
from lamplighter.keys.value import KeyBuffer
from unit.keys.simulation import LINEAGE, PERSONAL, START, SimNeon, SimSink, World, adopted, finish, go, rotation


@pytest.fixture
def world() -> World:
    world = World()
    adopted(world, ["R0", "W1"])
    return world


def lineage(world: World) -> Lineage:
    return world.state().lineage(LINEAGE)


class Failing(SimSink):
    """Does not do what `fails` names, so many times."""

    def __init__(self, world: World, address: str, *, fails: str, times: int = 1000) -> None:
        super().__init__(world, address)
        self.fails = fails
        self.times = times

    def _maybe(self, what: str, error: Exception) -> None:
        if self.fails == what and self.times:
            self.times -= 1
            raise error

    def check(self) -> str:
        self._maybe("check", SinkRefused(address=self.address))
        return super().check()

    def write(self, value: KeyBuffer, marker: str) -> Receipt:
        self._maybe("write", SinkUnreachable(address=self.address))
        return super().write(value, marker)

    def metadata(self) -> Receipt | None:
        self._maybe("metadata", SinkUnreachable(address=self.address))
        return super().metadata()


def test_a_sink_that_is_down_is_found_out_before_anything_is_minted(world: World):
    sinks = [SimSink(world, "R0"), Failing(world, "W1", fails="check")]
    with pytest.raises(SinkRefused, match="W1"):
        rotation(world, [], sinks=sinks).run()
    assert world.posted == []
    assert not lineage(world).unfinished


def test_a_sink_that_goes_down_before_any_was_told_undoes_the_rotation(world: World):
    sinks = [Failing(world, "R0", fails="metadata"), SimSink(world, "W1")]
    with pytest.raises(SinkUnreachable, match="R0"):
        rotation(world, [], sinks=sinks).run()
    assert set(world.live) == {1, 2}
    assert not lineage(world).unfinished


def test_a_sink_that_goes_down_in_the_middle_leaves_a_rotation_to_be_resumed(world: World):
    """The value is taken from the sink that can be read: no second key is needed."""
    sinks = [SimSink(world, "R0"), Failing(world, "W1", fails="write")]
    with pytest.raises(SinkUnreachable, match="W1"):
        rotation(world, [], sinks=sinks).run()
    assert set(world.live) == {1, 2, 3}
    assert lineage(world).unfinished
    assert finish(world, ["R0", "W1"]).state == "done"
    assert set(world.live) == {1, 3}
    assert world.wrong == []


def test_a_sink_that_is_away_for_a_moment_is_written_again(world: World):
    sinks = [SimSink(world, "R0"), Failing(world, "W1", fails="write", times=2)]
    assert rotation(world, [], sinks=sinks).run().state == "done"


def test_readable_sinks_come_first_and_the_one_we_live_on_last(world: World):
    world = World()
    stored: list[str | None] = []

    def see(event: Event) -> None:
        if event.step == "store":
            stored.append(event.sink)

    sinks = [SimSink(world, each) for each in ("W0", "R1", "R2", "W3")]
    rotation(world, [], sinks=sinks, last="R1", before=see).run()
    assert stored == ["R2", "W0", "W3", "R1"]


def test_hooks_surround_each_effect_and_progress_tells_of_every_step(world: World):
    before: list[str | None] = []
    after: list[str | None] = []
    said: list[str] = []
    outcome = rotation(
        world,
        ["R0", "W1"],
        soak=5.0,
        before=lambda event: before.append(event.step),
        after=lambda event: after.append(event.step),
        progress=lambda event: said.append(event.sentence),
    ).run()
    assert before == after == ["mint", "store", "store", "verify", "soak", "revoke"]
    assert len(said) > len(before)
    assert all(said)
    assert (outcome.state, outcome.key_id, outcome.revoked) == ("done", 3, (2,))
    assert outcome.levels == {"R0": "value", "W1": "metadata"}


def test_a_hook_that_raises_stops_the_rotation_there(world: World):
    class NotNowError(Exception):
        pass

    def stop(event: Event) -> None:
        if event.step == "revoke":
            raise NotNowError

    with pytest.raises(NotNowError):
        rotation(world, ["R0", "W1"], before=stop).run()
    assert set(world.live) == {1, 2, 3}
    assert finish(world, ["R0", "W1"]).state == "done"


def test_what_was_soaking_when_another_rotation_is_asked_for_is_finished_and_counts(world: World):
    """One unfinished rotation of a lineage at a time, and not two keys where one is wanted."""
    assert rotation(world, ["R0", "W1"], soak=60.0, wait=False).run().state == "soaking"
    world.seconds += 61
    assert rotation(world, ["R0", "W1"], soak=60.0).run().key_id == 3
    assert len(world.posted) == 1


def test_what_another_process_finished_during_the_soak_is_not_done_twice(world: World, tmp_path: Path):
    """As when an emergency ends it: whoever slept through that must not rotate again."""
    records, world.records = world.records, []
    with Journal(tmp_path / "state") as journal:
        for each in records:
            journal.append(each)

    def start(sleep: Callable[[float], None]) -> Rotation:
        made = rotation(world, ["R0", "W1"], soak=60.0)
        made._journal = Journal(tmp_path / "state")
        made._clock = replace(made._clock, sleep=sleep)
        return made

    def somebody_ends_it(seconds: float) -> None:
        world.seconds += 61
        assert start(lambda seconds: None).recover().state == "done"

    outcome = start(somebody_ends_it).run()
    assert (outcome.state, outcome.key_id) == ("done", 3)
    assert len(world.posted) == 1
    assert set(world.live) == {1, 3}


def test_a_soak_may_be_cut_short_by_who_asks_for_the_same_rotation_again(world: World):
    """The new key is proven, and nobody used the old one since."""
    assert rotation(world, ["R0", "W1"], soak=3600.0, wait=False).run().state == "soaking"
    world.seconds += 10
    assert rotation(world, ["R0", "W1"], soak=None, wait=False).run().until == START + timedelta(seconds=3600)
    assert rotation(world, ["R0", "W1"], soak=60.0, wait=False).run().until == START + timedelta(seconds=60)
    outcome = rotation(world, ["R0", "W1"], soak=0.0, wait=False).run()
    assert (outcome.state, outcome.key_id, outcome.revoked) == ("done", 3, (2,))
    assert len(world.posted) == 1
    assert world.wrong == []


def test_a_soak_that_is_cut_short_still_spares_a_key_in_use(world: World):
    rotation(world, ["R0", "W1"], soak=3600.0, wait=False).run()
    world.used[2] = "just now"
    with pytest.raises(Held):
        rotation(world, ["R0", "W1"], soak=0.0).run()
    assert 2 in world.live


class TestRevokedMeanwhile:
    """As by `lamp keys emergency`, which waits for nobody."""

    def run(self, world: World, step: str, key_id: int, **options: object) -> Outcome:
        def revoke(event: Event) -> None:
            if event.step == step:
                world.live.pop(key_id, None)

        world.alone = False
        return rotation(world, ["R0", "W1"], before=revoke, **options).run()

    @pytest.mark.parametrize("step", ["mint", "store", "verify", "soak", "revoke"])
    def test_the_old_key(self, world: World, step: str):
        outcome = self.run(world, step, 2, soak=5.0)
        assert (outcome.state, outcome.key_id, set(world.live)) == ("done", 3, {1, 3})
        assert lineage(world).live == {3}

    @pytest.mark.parametrize("step", ["store", "verify", "soak"])
    def test_the_new_key(self, world: World, step: str):
        """Another is made and put over it, before the old one goes."""
        outcome = self.run(world, step, 3, soak=5.0)
        assert (outcome.state, outcome.key_id, set(world.live)) == ("done", 4, {1, 4})
        assert {world.key_in(each) for each in ("R0", "W1")} == {4}


class TestSmoke:
    """The command that has to end with 0 belongs to the rotation, and so to its recovery."""

    def begin(self, world: World) -> None:
        with pytest.raises(NotProven, match="ended with 3") as raised:
            rotation(world, ["R0", "W1"], smoke="exit 3").run()
        assert "same command again" in (raised.value.hint or "")
        assert 2 in world.live

    def test_it_is_run_again_and_said_so(self, world: World):
        self.begin(world)
        said: list[str] = []
        with pytest.raises(NotProven, match="ended with 3"):
            rotation(world, ["R0", "W1"], progress=lambda event: said.append(event.sentence)).recover()
        assert "run `exit 3`, which has to end with 0" in said

    def test_another_may_be_run(self, world: World):
        self.begin(world)
        assert rotation(world, ["R0", "W1"]).recover(smoke="exit 0").state == "done"
        assert [each.smoke for each in world.records if isinstance(each, rec.Verified)] == ["exit 0"]

    def test_or_none(self, world: World):
        self.begin(world)
        said: list[str] = []
        progress = rotation(world, ["R0", "W1"], progress=lambda event: said.append(event.sentence))
        assert progress.recover(smoke="").state == "done"
        assert "`exit 3` is not run" in said
        assert [each.smoke for each in world.records if isinstance(each, rec.Verified)] == [None]


def test_what_neon_said_last_is_told_when_it_is_given_up(world: World):
    class Broken(SimNeon):
        def mint(self, scope: Scope, name: str) -> MintedKey:
            self.world.posted.append(name)
            raise MintUnknown("Neon refused to make a key: HTTP 502", status=502, request_id="r-1")

    one = rotation(world, ["R0", "W1"])
    one._server = Broken(world)
    with pytest.raises(MintUnknown, match="HTTP 502") as raised:
        one.run()
    assert (raised.value.status, raised.value.request_id) == (502, "r-1")
    assert not lineage(world).unfinished


class Stranger(SimNeon):
    """Another account, or another server: its list has none of ours."""

    def identity(self) -> Identity:
        return Identity(account_id="a stranger", method="api_key_user")

    def list(self, scope: Scope) -> Mapping[int, LiveKey]:
        return {}


@pytest.mark.parametrize("mode", ["run", "recover"])
@pytest.mark.parametrize("stop", [None, "after POST", "after minted", "after stored", "before DELETE"])
def test_with_the_minter_of_another_account_nothing_is_taken_for_gone(world: World, mode: str, stop: str | None):
    """`lamp up` and the cloud share a journal by default: keys of the one are not in the list of the other."""
    go(world, ["R0", "W1"], stop=stop)
    live, posted, told = dict(world.live), list(world.posted), len(world.records)
    stray = rotation(world, ["R0", "W1"])
    stray._server = Stranger(world)
    if mode == "recover" and stop is None:
        assert stray.recover().state == "nothing"
    else:
        with pytest.raises(MinterUnfit, match="of account somebody, and the minter is of a stranger"):
            getattr(stray, mode)()
    assert (world.live, world.posted, len(world.records)) == (live, posted, told)
    assert finish(world, ["R0", "W1"]).state in ("done", "undone", "nothing")
    assert world.wrong == []


def test_what_was_unfinished_for_other_sinks_is_finished_and_then_the_new_one_made(world: World):
    assert rotation(world, ["R0", "W1"], soak=60.0, wait=False).run().state == "soaking"
    world.seconds += 61
    assert rotation(world, ["R0", "W1", "W2"]).run().key_id == 4
    assert set(world.live) == {1, 4}
    assert world.key_in("W2") == 4


def test_a_consumer_that_is_seen_is_part_of_the_proof(world: World):
    def use(seconds: float) -> None:
        world.seconds += seconds
        world.used[3] = "later than us"

    clock = rotation(world, [])._clock
    clock = type(clock)(now=clock.now, monotonic=clock.monotonic, sleep=use)
    assert rotation(world, ["R0", "W1"], consumer=60.0, clock=clock).run().consumer == "later than us"


def test_a_consumer_that_is_not_seen_leaves_the_old_key(world: World):
    with pytest.raises(NotProven, match="nobody used the new key within 60 s"):
        rotation(world, ["R0", "W1"], consumer=60.0).run()
    assert 2 in world.live
    assert lineage(world).unfinished


@pytest.mark.parametrize("kind", ["organization", "project"])
def test_with_a_minter_that_does_not_see_the_organization_nothing_is_taken_for_gone(kind: str):
    """A list of another organization, or of another server, has none of these keys either."""
    scope = Scope(kind="organization", org_id="org-a")
    if kind == "project":
        scope = Scope(kind="project", org_id="org-a", project_id="p-1")
    world = World()
    adopted(world, ["R0"], scope=scope)

    class Elsewhere(Stranger):
        def organizations(self) -> frozenset[str]:
            return frozenset({"org-b"})

    for mode in ("run", "recover"):
        if mode == "recover":
            rotation(world, ["R0"], scope=scope, soak=60.0, wait=False).run()
        stray = rotation(world, ["R0"], scope=scope, soak=60.0)
        stray._server = Elsewhere(world)
        told, live = len(world.records), dict(world.live)
        with pytest.raises(MinterUnfit, match="of organization org-a, which the minter does not see"):
            getattr(stray, mode)()
        assert (len(world.records), world.live) == (told, live)


class Vain(SimSink):
    """Says yes, and forgets."""

    def write(self, value: KeyBuffer, marker: str) -> Receipt:
        return Receipt(version="new")


@pytest.mark.parametrize("address", ["R0", "W0"])
def test_a_sink_that_says_yes_and_does_nothing_is_not_believed(address: str):
    world = World()
    adopted(world, [address])
    with pytest.raises(NotProven) as raised:
        rotation(world, [], sinks=[Vain(world, address)]).run()
    assert raised.value.address == address
    assert 2 in world.live


class Elsewhere(SimNeon):
    """Mints for something else than was asked."""

    def mint(self, scope: Scope, name: str):
        minted = super().mint(scope, name)
        return type(minted)(key_id=minted.key_id, project_id="another", value=minted.value)


class Refusing(SimNeon):
    def check(self, scope: Scope, key_id: int, value: KeyBuffer) -> Identity:
        raise NotProven("Neon does not accept the new key")


class Organization(SimNeon):
    def identity(self) -> Identity:
        return Identity(account_id="org", method="api_key_org")


@pytest.mark.parametrize(
    ("server", "error"), [(Elsewhere, WrongScope), (Refusing, NotProven), (Organization, MinterUnfit)]
)
def test_a_key_that_is_not_what_was_asked_for_is_withdrawn(world: World, server: type[SimNeon], error: type[Exception]):
    one = rotation(world, ["R0", "W1"])
    one._server = server(world)
    with pytest.raises(error):
        one.run()
    assert set(world.live) == {1, 2}
    assert {world.key_in(each) for each in ("R0", "W1")} == {2}
    assert not lineage(world).unfinished


def test_what_cannot_be_meant_is_refused(world: World):
    with pytest.raises(PolicyError):
        rotation(world, ["R0", "R0"]).run()
    with pytest.raises(PolicyError):
        rotation(world, ["R0"], scope=None).run()


def test_no_value_is_held_when_it_is_not_needed_any_more(world: World):
    """From the proof on, and after an error."""
    held: list[tuple[str | None, bool]] = []
    one = rotation(world, ["R0", "W1"])
    buffers: list[KeyBuffer] = []
    write = SimSink.write

    class Keeping(SimSink):
        def write(self, value: KeyBuffer, marker: str) -> Receipt:
            buffers.append(value)
            return write(self, value, marker)

    one = rotation(world, [], sinks=[Keeping(world, "R0"), Keeping(world, "W1")])
    one._before = lambda event: held.append((event.step, any(bool(each) for each in buffers)))
    assert isinstance(one, Rotation)
    one.run()
    assert held == [("mint", False), ("store", False), ("store", True), ("verify", True), ("revoke", False)]
    assert not any(bool(each) for each in buffers)


def test_every_lineage_is_recovered_on_its_own(world: World, tmp_path: Path):
    """What stops one does not stop the others."""
    clock = rotation(world, [])._clock
    manager = Manager(server=SimNeon(world), journal=Journal(tmp_path / "state"), minter_id=1, clock=clock)
    world.alone = False

    def target(name: str) -> Target:
        (tmp_path / name).mkdir()
        sink = parse_sink(f"dotenv:{tmp_path / name / '.env'}#KEY")
        soak = timedelta(seconds=60)
        return Target(lineage=name, naming=Naming(name), scope=PERSONAL, sinks=(sink,), soak=soak)

    targets = [target("bad"), target("good")]
    manager.rotate(targets)
    begun = manager.rotate(targets, wait=False)
    assert [each.outcome.state for each in begun if each.outcome] == ["soaking", "soaking"]
    world.seconds += 61
    (tmp_path / "bad" / ".env").unlink()
    bad, good = manager.recover()
    assert (bad.lineage, type(bad.error), good.outcome and good.outcome.state) == ("bad", NotProven, "done")
    (tmp_path / "bad" / ".env").touch(0o600)
    assert [type(each.error) for each in manager.recover()] == [NotProven]
