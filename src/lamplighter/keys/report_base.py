"""What all reports of an audit share: what is in them, and how foreign text is made harmless. Pure.

Names of keys come from whoever could make one: in a report they are data, whatever characters they hold.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from lamplighter.keys.audit import RULES, Audit
from lamplighter.keys.evidence import rotations_done
from lamplighter.keys.facts import Gap, KeyFact
from lamplighter.keys.findings import Finding, View

#: Of the JSON: fields are added to it, never taken away or given another meaning.
SCHEMA_VERSION: Final = 1

#: Control characters, those that are not seen or turn the text around, halves of pairs, and line breaks.
_HARMFUL: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Meta:
    """What a report says besides the audit. `addresses`: with where keys were used from."""

    version: str
    policy_path: str = ""
    addresses: bool = False


def clean(text: str) -> str:
    """In one line; every character that is not plainly seen is written as its number."""
    return "".join(_escaped(each) if unicodedata.category(each) in _HARMFUL else each for each in text)


def _escaped(letter: str) -> str:
    code = ord(letter)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def moment(at: datetime | None) -> str | None:
    """`2026-11-22T03:00:00Z`."""
    return None if at is None else at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def in_days(span: timedelta) -> float:
    return round(span / timedelta(days=1), 4)


def view_of(audit: Audit) -> View:
    return View(inventory=audit.inventory, policy=audit.policy, now=audit.at)


def gap_text(gap: Gap) -> str:
    return f"{gap.source}{' ' + gap.what if gap.what else ''}: {gap.reason}"


def summary(audit: Audit) -> str:
    """One sentence, never of nothing."""
    counts = [f"{count} {severity}" for severity, count in audit.counts.items() if count]
    parts = [f"{_many(len(audit.findings), 'finding')}{' (' + ', '.join(counts) + ')' if counts else ''}"]
    if audit.ignored:
        parts.append(f"{len(audit.ignored)} ignored")
    if audit.gaps:
        parts.append(f"{_many(len(audit.gaps), 'thing')} could not be looked at")
    if audit.unfinished:
        parts.append(f"{_many(len(audit.unfinished), 'rotation')} to recover")
    return f"{_many(len(audit.inventory.keys), 'key')}; " + "; ".join(parts)


def _many(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def document(audit: Audit, meta: Meta) -> dict[str, Any]:
    """All that is known, as JSON has it. What is a foreign text is as it was found."""
    found = audit.inventory
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "lamplighter.keys.audit",
        "tool": {"name": "lamplighter", "version": meta.version},
        "at": moment(audit.at),
        "looked_at": moment(found.at),
        "server": found.server,
        "account_id": found.account_id,
        "org_ids": list(audit.policy.org_ids),
        "policy": {
            "path": meta.policy_path or None,
            "digest": audit.policy.digest or None,
            "fail_on": audit.policy.defaults.fail_on,
        },
        "exit_code": audit.exit_code,
        "summary": summary(audit),
        "counts": {
            "keys": len(found.keys),
            "findings": dict(audit.counts),
            "ignored": len(audit.ignored),
            "could_not_look": len(audit.gaps),
            "unfinished": len(audit.unfinished),
        },
        "findings": [_finding(each, meta) for each in audit.findings],
        "ignored": [_finding(each, meta) for each in audit.ignored],
        "exceptions": _exceptions(audit),
        "could_not_look": [{"source": each.source, "what": each.what, "reason": each.reason} for each in audit.gaps],
        "rules": [_rule(audit, each.id) for each in RULES],
        "unfinished": list(audit.unfinished),
        "keys": _keys(audit, meta),
        "sinks": _sinks(audit),
        "rotations": _rotations(audit),
    }


def _finding(finding: Finding, meta: Meta) -> dict[str, Any]:
    about = finding.problem
    known: dict[str, Any] = {
        "rule": finding.rule,
        "severity": finding.severity,
        "subject": about.subject,
        "key_id": about.key_id,
        "name": about.name,
        "lineage": about.lineage,
        "sink": about.sink,
        "sentence": about.sentence,
        "advice": about.advice,
        "line": finding.line,
    }
    if meta.addresses:
        known["addresses"] = list(about.addresses)
    if finding.ignored is not None:
        known["ignored"] = {"reason": finding.ignored.reason, "until": moment(finding.ignored.until)}
    return known


def _exceptions(audit: Audit) -> list[dict[str, Any]]:
    return [
        {
            "rule": each.ignore.rule,
            "key_id": each.ignore.key_id,
            "name": each.ignore.name,
            "lineage": each.ignore.lineage,
            "sink": each.ignore.sink,
            "reason": each.ignore.reason,
            "until": moment(each.ignore.until),
            "state": each.state,
            "findings": each.count,
            "line": each.ignore.line,
        }
        for each in audit.excuses
    ]


def _rule(audit: Audit, rule: str) -> dict[str, Any]:
    """`looked` is False where something could not be looked at, null where there was nothing to go by."""
    unasked = audit.unasked.get(rule)
    return {
        "id": rule,
        "looked": None if unasked is not None else rule not in audit.blind,
        "unasked": unasked,
        "findings": sum(each.rule == rule for each in audit.findings),
    }


def _keys(audit: Audit, meta: Meta) -> list[dict[str, Any]]:
    view = view_of(audit)
    return [_key(audit, view, key, meta) for key in view.keys]


def _key(audit: Audit, view: View, key: KeyFact, meta: Meta) -> dict[str, Any]:
    declared = view.declared(key)
    known: dict[str, Any] = {
        "id": key.id,
        "name": key.name,
        "scope": key.kind,
        "org_id": key.org_id,
        "project_id": key.project_id,
        "lineage": view.lineages.get(key.id),
        "owner": declared.owner if declared else None,
        "minter": key.id == audit.inventory.minter_id,
        "created_at": moment(key.created_at),
        "created_by": key.created_by,
        "creator": key.creator,
        "age_days": in_days(audit.at - key.created_at),
        "last_used_at": moment(key.last_used_at),
        "last_used_days": None if key.last_used_at is None else in_days(audit.at - key.last_used_at),
    }
    if meta.addresses:
        known["last_used_from"] = list(key.last_used_from)
    return known


def _sinks(audit: Audit) -> list[dict[str, Any]]:
    return [
        {
            "name": each.name,
            "address": each.address,
            "present": each.receipt is not None,
            "updated_at": moment(each.receipt.updated_at) if each.receipt else None,
            "version": each.receipt.version if each.receipt else None,
            "read": each.was_read,
        }
        for each in sorted(audit.inventory.sinks.values(), key=lambda fact: fact.name)
    ]


def _rotations(audit: Audit) -> list[dict[str, Any]]:
    return [
        {
            "lineage": each.lineage,
            "rid": each.rid,
            "key_id": each.key_id,
            "revoked": list(each.revoked),
            "begun": moment(each.begun),
            "verified": moment(each.verified),
            "done": moment(each.done),
            "proofs": dict(sorted(each.levels.items())),
            "consumer_seen": each.consumer,
        }
        for each in rotations_done(audit.inventory.records or ())
    ]
