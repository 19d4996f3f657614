"""The table of recovery, line by line, and what may be revoked."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from lamplighter.keys import records as rec
from lamplighter.keys.errors import KeysError, MinterUnfit, NotProven
from lamplighter.keys.fold import Lineage, fold
from lamplighter.keys.naming import Naming
from lamplighter.keys.plan import Candidate, Facts, Listing, LiveKey, OwnKey, why_not_revoke
from lamplighter.keys.records import Scope, SinkRef
from unit.keys.simulation import LINEAGE, World, adopted, finish, go

#: Where the process ends; what the sinks are; what recovery comes to: its state, the key, and which are revoked.
TABLE = [
    ("before mint_intent", "W0", "nothing", None, ()),
    ("before POST", "W0", "undone", None, ()),
    ("after POST", "W0", "undone", None, (3,)),
    ("before minted", "W0", "undone", None, (3,)),
    ("after minted", "W0", "undone", None, (3,)),
    ("after checked", "R0", "undone", None, (3,)),
    ("before store_intent", "W0", "undone", None, (3,)),
    ("after store_intent", "W0", "done", 4, (2, 3)),
    ("after store_intent", "R0", "done", 4, (2, 3)),
    ("after a write", "R0", "done", 3, (2,)),
    ("after a write", "W0", "done", 4, (2, 3)),
    ("after a write", "R0 W1", "done", 3, (2,)),
    ("after stored", "W0", "done", 3, (2,)),
    ("after stored", "W0 W1", "done", 4, (2, 3)),
    ("after verified", "W0", "done", 3, (2,)),
    ("after soaking", "W0", "done", 3, (2,)),
    ("after revoke_intent", "W0", "done", 3, (2,)),
    ("after DELETE", "W0", "done", 3, ()),
    ("after revoked", "W0", "done", 3, ()),
    ("before done", "W0", "done", 3, ()),
    ("after done", "W0", "nothing", None, ()),
]


@pytest.mark.parametrize(("stop", "sinks", "state", "key_id", "revoked"), TABLE)
def test_the_table_of_recovery(stop: str, sinks: str, state: str, key_id: int | None, revoked: tuple[int, ...]):
    """No more keys are minted, and no more is undone, than has to be."""
    world, addresses = World(), sinks.split()
    adopted(world, addresses)
    assert not go(world, addresses, stop=stop)
    outcome = finish(world, addresses)
    assert (outcome.state, outcome.key_id, outcome.revoked) == (state, key_id, revoked)
    assert world.wrong == []
    lineage = world.state().lineage(LINEAGE)
    assert set(world.live) == {1, lineage.current}
    assert not lineage.unfinished


def test_a_post_that_may_be_under_way_is_waited_for():
    """A missing name means no key only after as long as the request may take."""
    world = World()
    adopted(world, ["W0"])
    go(world, ["W0"], stop="before POST")
    finish(world, ["W0"])
    assert world.seconds >= 30


def test_a_post_that_took_effect_while_we_waited_is_found():
    world = World()
    adopted(world, ["W0"])
    go(world, ["W0"], stop="before POST")
    (intent,) = [each for each in world.records if isinstance(each, rec.MintIntent)]

    def arrive(event: object) -> None:
        if "under way" in getattr(event, "sentence", ""):
            world.live[9], world.values[9] = intent.name, b"value-9"

    assert finish(world, ["W0"], progress=arrive).revoked == (9,)
    assert set(world.live) == {1, 2}


# What may be revoked

AT = datetime(2026, 1, 1, tzinfo=UTC)
AUTHOR = {"at": AT, "lineage": LINEAGE}
PERSONAL = Scope(kind="personal")
SINK = SinkRef("sealed:one")
OLD = rec.Adopted(**AUTHOR, key_id=2, name="old", scope=PERSONAL, sinks=(SINK,))
RECORDS = (
    OLD,
    rec.MintIntent(**AUTHOR, rid="a", name="lamp.ci.a", scope=PERSONAL, sinks=(SINK,), soak=0, timeout=1),
    rec.Minted(**AUTHOR, rid="a", key_id=3, mac="m3"),
    rec.StoreIntent(**AUTHOR, rid="a", key_id=3, sink=SINK.address),
    rec.Stored(**AUTHOR, rid="a", key_id=3, sink=SINK.address, receipt=rec.Receipt()),
)
FACTS = Facts(
    now=AT,
    clock=0.0,
    wanted=False,
    candidate=Candidate(rid="b", name="lamp.ci.b", scope=PERSONAL, sinks=(), soak=0),
    naming=Naming(LINEAGE),
    listing=Listing(asked=0.0, keys={2: LiveKey(id=2, name="old"), 3: LiveKey(id=3, name="lamp.ci.a")}),
    own=OwnKey(id=1, mac="m1", scope="personal"),
)


def lineage_of(*records: rec.Record) -> Lineage:
    return fold(records).lineage(LINEAGE)


def why(facts: Facts = FACTS, key_id: int = 2, records: tuple[rec.Record, ...] = RECORDS) -> KeysError | None:
    return why_not_revoke(lineage_of(*records), facts, key_id)


def listing(**names: str) -> Listing:
    return Listing(asked=0.0, keys={int(key[1:]): LiveKey(id=int(key[1:]), name=name) for key, name in names.items()})


def test_an_old_key_that_no_sink_may_hold_may_go():
    assert why() is None


@pytest.mark.parametrize(
    ("facts", "key_id", "records", "says"),
    [
        pytest.param(FACTS, 9, RECORDS, "not in the journal", id="a stranger's"),
        pytest.param(replace(FACTS, listing=None), 2, RECORDS, "not looked", id="without a look"),
        pytest.param(
            replace(FACTS, listing=listing(k2="other", k3="lamp.ci.a")), 2, RECORDS, "another name", id="another name"
        ),
        pytest.param(FACTS, 3, RECORDS, "may still hold", id="in a sink"),
        pytest.param(FACTS, 2, RECORDS[:4], "may still hold", id="in a sink that is being written"),
        pytest.param(replace(FACTS, listing=listing(k2="old")), 2, RECORDS, "last live key", id="the last"),
    ],
)
def test_what_forbids_a_revocation(facts: Facts, key_id: int, records: tuple[rec.Record, ...], says: str):
    error = why(facts, key_id, records)
    assert isinstance(error, NotProven)
    assert says in str(error)


@pytest.mark.parametrize(
    ("own", "mac", "forbidden"),
    [
        (OwnKey(id=2), None, True),
        (OwnKey(mac="m2"), "m2", True),
        (OwnKey(mac="m1", scope="personal"), "m2", False),
        (OwnKey(mac="m1", scope="personal"), None, True),
        (OwnKey(mac="m1", scope="organization"), None, False),
        (OwnKey(mac="m1"), None, False),
        (OwnKey(id=1, mac="m1", scope="personal"), None, False),
    ],
)
def test_the_key_that_we_work_with_is_never_revoked(own: OwnKey, mac: str | None, forbidden: bool):
    """Known by its id or its value; where neither is known, a key of the same list may be it."""
    records = (replace(OLD, mac=mac), *RECORDS[1:])
    error = why(replace(FACTS, own=own), 2, records)
    assert isinstance(error, MinterUnfit) if forbidden else error is None


def test_a_key_that_nobody_was_told_of_may_be_the_last():
    """Undoing the first rotation of a lineage leaves none."""
    assert why(replace(FACTS, listing=listing(k3="lamp.ci.a")), 3, RECORDS[1:3]) is None


def test_in_an_emergency_a_key_goes_though_sinks_hold_it():
    forced = rec.RevokeIntent(**AUTHOR, key_id=3, name="lamp.ci.a", forced=True)
    assert why(FACTS, 3, (*RECORDS, forced)) is None
    assert why(FACTS, 3, (*RECORDS, replace(forced, forced=False))) is not None
