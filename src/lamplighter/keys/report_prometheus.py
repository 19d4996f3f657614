"""An audit as Prometheus text, for a textfile collector. Pure.

A rule that could not see everything has no count. An alert on the missing series, or on
`lamplighter_keys_could_not_look`, tells that from zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from lamplighter.keys.audit import RULES, Audit
from lamplighter.keys.report_base import Meta, clean, in_days, view_of

Sample = tuple[Mapping[str, str], float]


def as_prometheus(audit: Audit, meta: Meta) -> str:
    """Gauges, in a fixed order. Where keys were used from is never in them."""
    lines: list[str] = []
    for name, text, samples in _families(audit, meta):
        lines += [f"# HELP {name} {text}", f"# TYPE {name} gauge"]
        lines += [f"{name}{_labels(labels)} {_number(value)}" for labels, value in samples]
    return "\n".join(lines) + "\n"


def _families(audit: Audit, meta: Meta) -> Iterator[tuple[str, str, Iterable[Sample]]]:
    view, found = view_of(audit), audit.inventory
    about = {key.id: {"key_id": str(key.id), "name": key.name, "scope": key.kind} for key in view.keys}
    for key_id, lineage in view.lineages.items():
        about[key_id]["lineage"] = lineage
    ages: list[Sample] = [(about[key.id], in_days(audit.at - key.created_at)) for key in view.keys]
    used: list[Sample] = [
        (about[key.id], in_days(audit.at - key.last_used_at)) for key in view.keys if key.last_used_at is not None
    ]
    never: list[Sample] = [(about[key.id], float(key.last_used_at is None)) for key in view.keys]
    findings: list[Sample] = [
        ({"rule": rule.id, "severity": rule.severity}, float(sum(each.rule == rule.id for each in audit.findings)))
        for rule in RULES
        if rule.id not in audit.blind and rule.id not in audit.unasked
    ]
    gaps: dict[str, int] = {}
    for gap in audit.gaps:
        gaps[gap.source] = gaps.get(gap.source, 0) + 1
    yield "lamplighter_key_age_days", "Days since the key was made.", ages
    yield "lamplighter_key_last_used_days", "Days since the key was last used; none for one that never was.", used
    yield "lamplighter_key_never_used", "1 for a key that was never used.", never
    yield "lamplighter_keys_findings", "Findings of the audit, by rule; none where it could not see all.", findings
    yield "lamplighter_keys_ignored", "Findings that the policy excuses.", [({}, float(len(audit.ignored)))]
    yield (
        "lamplighter_keys_could_not_look",
        "What could not be looked at, by source.",
        [({"source": source}, float(count)) for source, count in sorted(gaps.items())] or [({}, 0.0)],
    )
    yield "lamplighter_keys_unfinished", "Rotations that wait for recovery.", [({}, float(len(audit.unfinished)))]
    yield "lamplighter_keys_audit_exit_code", "The exit code of the audit.", [({}, float(audit.exit_code))]
    yield "lamplighter_keys_audit_time_seconds", "When the facts were looked at.", [({}, found.at.timestamp())]
    version = {"version": meta.version, "policy_digest": audit.policy.digest}
    yield "lamplighter_keys_audit_info", "What audited, by which policy.", [(version, 1.0)]


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_value(text)}"' for name, text in labels.items()) + "}"


def _value(text: str) -> str:
    return clean(text).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(round(value, 4))
