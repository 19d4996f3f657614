"""Facts for audits: keys, journals and stores as a server and a state directory would show them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from lamplighter.keys import records as rec
from lamplighter.keys.audit import Audit, audit
from lamplighter.keys.facts import Inventory, KeyFact, SinkFact
from lamplighter.keys.findings import Finding
from lamplighter.keys.fold import fold
from lamplighter.keys.policy import parse_policy
from lamplighter.keys.records import Record, Scope, SinkRef
from lamplighter.keys.sinks.base import Receipt

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
INSTANT = timedelta(microseconds=1)
ORG, PROJECT, USER = "org-a-1", "project-a-1", "5f1c2a9e-0000-4000-8000-000000000001"
SCOPE = Scope(kind="project", org_id=ORG, project_id=PROJECT)
MINTER_ID = 1
#: A sink of the policy, and where it is.
SINK, ADDRESS = "store", "dotenv:/srv/.env#NEON_API_KEY"

POLICY = f"""\
version = 1
[neon]
org_id = "{ORG}"
minter_id = {MINTER_ID}
[defaults]
[lineage.ci]
scope = "project"
project_id = "{PROJECT}"
owner = "platform@example.org"
sinks = ["{SINK}"]
[sink.{SINK}]
address = "{ADDRESS}"
"""


def rid_of(number: int) -> str:
    """A rotation id for every number."""
    return "".join("abcdefghijklmnopqrstuvwxyz"[number // 26**at % 26] for at in range(10))


def name_of(number: int, lineage: str = "ci") -> str:
    return f"lamp.{lineage}.{rid_of(number)}"


def key(number: int, **facts: Any) -> KeyFact:
    """A key of the lineage `ci` that nothing is wrong with: ten days old, used an hour ago."""
    known: dict[str, Any] = {
        "name": name_of(number),
        "kind": "project",
        "org_id": ORG,
        "project_id": PROJECT,
        "created_at": NOW - 10 * DAY,
        "created_by": USER,
        "creator": "Ada",
        "last_used_at": NOW - HOUR,
        "last_used_from": ("10.0.0.1",),
    }
    return KeyFact(id=number, **{**known, **facts})


def minter(**facts: Any) -> KeyFact:
    known = {"name": "minter", "kind": "personal", "org_id": None, "project_id": None, "last_used_at": NOW}
    return key(MINTER_ID, **{**known, **facts})


def adopted(number: int, at: datetime, *, mac: str | None = None, sinks: Sequence[str] = (ADDRESS,)) -> Record:
    refs = tuple(SinkRef(each) for each in sinks)
    return rec.Adopted(at=at, lineage="ci", key_id=number, name=name_of(number), scope=SCOPE, sinks=refs, mac=mac)


def rotation(
    number: int, begun: datetime, *, until: str = "done", revoked: Sequence[int] = (), soak: float = 3600.0
) -> list[Record]:
    """The records of the rotation that mints this key: a step each minute, up to the step that is named."""
    rid, steps = rid_of(number), iter(range(100))

    def known() -> dict[str, Any]:
        return {"at": begun + timedelta(minutes=next(steps)), "lineage": "ci"}

    all_steps: list[tuple[str, Record]] = [
        (
            "intent",
            rec.MintIntent(
                **known(), rid=rid, name=name_of(number), scope=SCOPE, sinks=(SinkRef(ADDRESS),), soak=soak, timeout=30
            ),
        ),
        ("minted", rec.Minted(**known(), rid=rid, key_id=number, mac=f"mac-{number}")),
        ("checked", rec.Checked(**known(), rid=rid, key_id=number, account_id=ORG)),
        ("storing", rec.StoreIntent(**known(), rid=rid, key_id=number, sink=ADDRESS)),
        ("stored", rec.Stored(**known(), rid=rid, key_id=number, sink=ADDRESS, receipt=Receipt())),
        ("verified", rec.Verified(**known(), rid=rid, key_id=number, levels={ADDRESS: "value"})),
    ]
    at = known()
    soaking = rec.Soaking(**at, rid=rid, until=at["at"] + timedelta(seconds=soak), seen=dict.fromkeys(revoked))
    all_steps.append(("soaking", soaking))
    for each in revoked:
        all_steps.append(("revoking", rec.RevokeIntent(**known(), rid=rid, key_id=each, name=name_of(each))))
        all_steps.append(("revoked", rec.Revoked(**known(), rid=rid, key_id=each)))
    all_steps.append(("done", rec.Done(**known(), rid=rid, key_id=number)))
    last = max(at for at, (name, _) in enumerate(all_steps) if name == until)
    return [record for _, record in all_steps[: last + 1]]


def sink(present: bool = True, **facts: Any) -> SinkFact:
    receipt = Receipt(updated_at=NOW - DAY) if present else None
    return SinkFact(**{"name": SINK, "address": ADDRESS, "receipt": receipt, **facts})


def inventory(keys: Sequence[KeyFact] = (), records: Sequence[Record] = (), **facts: Any) -> Inventory:
    """With the minter. Unless told otherwise the journal knows the keys of `ci`, and the sink holds the last one."""
    known: dict[str, Any] = {
        "server": "https://neon.example/api/v2",
        "account_id": "account-1",
        "members": {ORG: frozenset({USER})},
        "projects": {ORG: frozenset({PROJECT})},
        "sinks": {SINK: sink()},
        "minter_id": MINTER_ID,
        "uses": (NOW,),
    }
    return Inventory(at=NOW, keys=(minter(), *keys), records=tuple(records), state=fold(records), **{**known, **facts})


def judged(
    keys: Sequence[KeyFact] = (), records: Sequence[Record] | None = None, *, policy: str = POLICY, **facts: Any
) -> Audit:
    """The audit of these facts. Without records each key was adopted when it was made."""
    if records is None:
        records = [adopted(each.id, each.created_at) for each in keys if each.name == name_of(each.id)]
    return audit(inventory(keys, records, **facts), parse_policy(policy), now=NOW)


def found(result: Audit, rule: str) -> list[Finding]:
    return [each for each in result.findings if each.rule == rule]


def rules(result: Audit) -> set[str]:
    return {each.rule for each in result.findings}


def shuffled(facts: Inventory, order: int) -> Inventory:
    """The same facts, listed in another order."""
    turn = order % max(1, len(facts.keys))
    return replace(
        facts,
        keys=(*facts.keys[turn:], *facts.keys[:turn])[:: -1 if order % 2 else 1],
        sinks=dict(reversed(facts.sinks.items())),
        gaps=facts.gaps[::-1],
    )
