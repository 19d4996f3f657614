"""What rotations were done, for whoever has to show it: ids, times and proofs, out of the journal. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from lamplighter.keys import records as rec
from lamplighter.keys.records import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class RotationDone:
    """One that was finished. `levels` says how far each sink was proven; `revoked` are the keys that it replaced."""

    lineage: str
    rid: str
    key_id: int
    begun: datetime
    done: datetime
    verified: datetime | None = None
    levels: Mapping[str, str]
    consumer: str | None = None
    revoked: tuple[int, ...] = ()


def rotations_done(records: Iterable[Record]) -> tuple[RotationDone, ...]:
    """In the order in which they were finished."""
    begun: dict[str, datetime] = {}
    verified: dict[str, rec.Verified] = {}
    revoked: dict[str, list[int]] = {}
    found: list[RotationDone] = []
    for record in records:
        match record:
            case rec.MintIntent():
                begun[record.rid] = record.at
            case rec.Verified():
                verified[record.rid] = record
            case rec.Revoked() if record.rid is not None:
                revoked.setdefault(record.rid, []).append(record.key_id)
            case rec.Done():
                proof = verified.get(record.rid)
                found.append(
                    RotationDone(
                        lineage=record.lineage,
                        rid=record.rid,
                        key_id=record.key_id,
                        begun=begun.get(record.rid, record.at),
                        done=record.at,
                        verified=proof.at if proof else None,
                        levels=dict(proof.levels) if proof else {},
                        consumer=proof.consumer if proof else None,
                        revoked=tuple(each for each in revoked.get(record.rid, []) if each != record.key_id),
                    )
                )
    return tuple(found)
