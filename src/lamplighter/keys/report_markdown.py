"""An audit as evidence, in Markdown: what was looked at, by which policy, what was found, done and excused. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

from lamplighter.keys.audit import BY_ID, Audit
from lamplighter.keys.report_base import Meta, clean, document

_SPECIAL: Final = re.compile(r"([\\`*_{}\[\]()#+!|~$^])")
#: What GitHub and others make links, mentions and tags of by itself.
_ACTIVE: Final = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "@": "&#64;", "://": "&#58;//", "www.": "www&#46;"}
_ACTIVE_ONE: Final = re.compile("|".join(map(re.escape, _ACTIVE)), re.IGNORECASE)


def escape(text: object) -> str:
    """As it reads, whatever Markdown would make of it; `-` for nothing."""
    if text is None or text == "":
        return "-"
    plain = _SPECIAL.sub(r"\\\1", clean(str(text)))
    return _ACTIVE_ONE.sub(lambda found: _ACTIVE[found[0].lower()], plain)


def as_markdown(audit: Audit, meta: Meta) -> str:
    """Reproducible: the digest names the policy, the time is that of the audit."""
    known = document(audit, meta)
    parts = [
        "# API keys: evidence of an audit",
        "",
        *_head(known),
        "",
        *_findings("Findings", known["findings"], meta),
        *_gaps(audit, known),
        *_exceptions(known["exceptions"]),
        *_rotations(known["rotations"]),
        *_keys(known["keys"], meta),
        *_rules(known["rules"]),
    ]
    return "\n".join(parts).rstrip("\n") + "\n"


def _table(heads: tuple[str, ...], rows: Iterable[Iterable[object]]) -> Iterator[str]:
    yield f"| {' | '.join(heads)} |"
    yield f"|{'---|' * len(heads)}"
    for row in rows:
        yield f"| {' | '.join(escape(cell) for cell in row)} |"
    yield ""


def _head(known: dict[str, Any]) -> Iterator[str]:
    policy, counts = known["policy"], known["counts"]
    found = ", ".join(f"{count} {severity}" for severity, count in counts["findings"].items())
    yield from _table(
        ("", ""),
        [
            ("Time", known["at"]),
            ("Looked at", known["looked_at"]),
            ("Tool", f"{known['tool']['name']} {known['tool']['version']}"),
            ("Server", known["server"]),
            ("Account", known["account_id"]),
            ("Organizations", ", ".join(known["org_ids"])),
            ("Policy", policy["path"]),
            ("Policy digest", policy["digest"]),
            ("Keys", counts["keys"]),
            ("Findings", found),
            ("Excused findings", counts["ignored"]),
            ("Could not be looked at", counts["could_not_look"]),
            ("Rotations to recover", ", ".join(known["unfinished"]) or "0"),
            ("Exit code", known["exit_code"]),
        ],
    )


def _findings(title: str, findings: list[dict[str, Any]], meta: Meta) -> Iterator[str]:
    yield f"## {title}"
    yield ""
    if not findings:
        yield "None."
        yield ""
        return
    heads: tuple[str, ...] = ("Severity", "Rule", "About", "Finding", "What to do")
    rows = [[each[name] for name in ("severity", "rule", "subject", "sentence", "advice")] for each in findings]
    if meta.addresses:
        heads = (*heads, "Used from")
        rows = [[*row, ", ".join(each["addresses"])] for row, each in zip(rows, findings, strict=True)]
    yield from _table(heads, rows)


def _gaps(audit: Audit, known: dict[str, Any]) -> Iterator[str]:
    if not known["could_not_look"]:
        return
    yield "## Could not be looked at"
    yield ""
    yield f"These rules did not see all there is: {', '.join(sorted(audit.blind)) or 'none'}."
    yield ""
    rows = [(each["source"], each["what"], each["reason"]) for each in known["could_not_look"]]
    yield from _table(("Source", "Which", "Why"), rows)


def _exceptions(exceptions: list[dict[str, Any]]) -> Iterator[str]:
    yield "## Exceptions"
    yield ""
    if not exceptions:
        yield "None."
        yield ""
        return
    rows = [
        (
            each["rule"],
            each["key_id"] or each["name"] or each["lineage"] or each["sink"],
            each["reason"],
            each["until"],
            each["state"],
            each["findings"],
        )
        for each in exceptions
    ]
    yield from _table(("Rule", "About", "Reason", "Until", "State", "Findings"), rows)


def _rotations(rotations: list[dict[str, Any]]) -> Iterator[str]:
    yield "## Rotations done"
    yield ""
    if not rotations:
        yield "None in the journal."
        yield ""
        return
    rows = [
        (
            each["lineage"],
            each["rid"],
            each["key_id"],
            ", ".join(map(str, each["revoked"])),
            each["begun"],
            each["verified"],
            each["done"],
            "; ".join(f"{sink}: {level}" for sink, level in each["proofs"].items()),
            each["consumer_seen"],
        )
        for each in rotations
    ]
    heads = ("Lineage", "Rotation", "New key", "Revoked", "Begun", "Proven", "Done", "Proofs", "Consumer seen")
    yield from _table(heads, rows)


def _keys(keys: list[dict[str, Any]], meta: Meta) -> Iterator[str]:
    yield "## Keys"
    yield ""
    heads: tuple[str, ...] = ("Id", "Name", "Scope", "Lineage", "Owner", "Made by", "Made", "Age in days", "Last used")
    fields = ("id", "name", "scope", "lineage", "owner", "creator", "created_at", "age_days")
    rows = [[*(each[name] for name in fields), each["last_used_at"] or "never"] for each in keys]
    if meta.addresses:
        heads = (*heads, "Used from")
        rows = [[*row, ", ".join(each["last_used_from"])] for row, each in zip(rows, keys, strict=True)]
    yield from _table(heads, rows)


def _rules(rules: list[dict[str, Any]]) -> Iterator[str]:
    yield "## Rules"
    yield ""
    looked = {True: "yes", False: "not at all that there is", None: "nothing to go by"}
    rows = [
        (
            each["id"],
            BY_ID[each["id"]].title,
            BY_ID[each["id"]].severity,
            looked[each["looked"]] + (f": {each['unasked']}" if each["unasked"] else ""),
            each["findings"],
        )
        for each in rules
    ]
    yield from _table(("Rule", "What", "Severity", "Looked", "Findings"), rows)
