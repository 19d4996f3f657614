"""An audit as SARIF 2.1.0, for code scanning: a finding is shown at the line of the policy that it breaks. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final, Literal
from urllib.parse import quote

from lamplighter.keys.audit import RULES, Audit
from lamplighter.keys.findings import Finding
from lamplighter.keys.policy import Severity
from lamplighter.keys.report_base import Meta, clean, gap_text, moment

_SCHEMA: Final = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
#: Where there is no policy file, results still need a place.
_NO_FILE: Final = "lamp-keys.toml"

_LEVELS: Final[Mapping[Severity, Literal["error", "warning", "note"]]] = {
    "critical": "error",
    "high": "error",
    "medium": "warning",
    "low": "note",
    "info": "note",
}
#: GitHub's own measure, from 0 to 10.
_SCORES: Final[Mapping[Severity, str]] = {
    "critical": "9.5",
    "high": "8.0",
    "medium": "5.5",
    "low": "3.0",
    "info": "0.1",
}
_INDEX: Final = {rule.id: at for at, rule in enumerate(RULES)}


def as_sarif(audit: Audit, meta: Meta) -> str:
    """One run. What could not be looked at are its notifications, and it did not succeed then."""
    run = {
        "tool": {
            "driver": {
                "name": "lamp keys audit",
                "version": meta.version,
                "semanticVersion": meta.version,
                "rules": [_rule(each.id, each.title, each.why, each.severity) for each in RULES],
            }
        },
        "automationDetails": {"id": "lamp-keys-audit/"},
        "invocations": [_invocation(audit)],
        "results": [_result(each, meta) for each in (*audit.findings, *audit.ignored)],
        "columnKind": "unicodeCodePoints",
        "properties": {"policyDigest": audit.policy.digest, "accountId": audit.inventory.account_id or ""},
    }
    return json.dumps({"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2, ensure_ascii=True) + "\n"


def message(text: str) -> str:
    """A message of SARIF: braces are places in it, and brackets are links."""
    plain = clean(text).replace("\\", "\\\\").replace("[", "\\[").replace("]", "\\]")
    return plain.replace("{", "{{").replace("}", "}}")


def _rule(name: str, title: str, why: str, severity: Severity) -> dict[str, Any]:
    return {
        "id": name,
        "name": "".join(word.capitalize() for word in title.replace("'", "").split()),
        "shortDescription": {"text": message(title)},
        "fullDescription": {"text": message(why)},
        "help": {"text": message(why)},
        "defaultConfiguration": {"level": _LEVELS[severity]},
        "properties": {"security-severity": _SCORES[severity], "tags": ["security", "api-keys"]},
    }


def _invocation(audit: Audit) -> dict[str, Any]:
    texts = [f"could not look at {gap_text(gap)}" for gap in audit.gaps]
    texts += [f"the rotation of {name} is unfinished: run `lamp keys recover`" for name in audit.unfinished]
    return {
        "executionSuccessful": not texts,
        "exitCode": audit.exit_code,
        "endTimeUtc": moment(audit.at),
        "toolExecutionNotifications": [{"level": "error", "message": {"text": message(text)}} for text in texts],
    }


def _result(finding: Finding, meta: Meta) -> dict[str, Any]:
    about = finding.problem
    text = f"{about.subject}: {about.sentence}. To do: {about.advice}"
    if meta.addresses and about.addresses:
        text += f". Used from {', '.join(about.addresses)}"
    found: dict[str, Any] = {
        "ruleId": finding.rule,
        "ruleIndex": _INDEX[finding.rule],
        "level": _LEVELS[finding.severity],
        "message": {"text": message(text)},
        "locations": [
            {
                "physicalLocation": {
                    "artifactLocation": {"uri": _uri(meta.policy_path or _NO_FILE)},
                    "region": {"startLine": finding.line},
                },
                "logicalLocations": [{"name": clean(about.subject), "kind": "resource"}],
            }
        ],
        "partialFingerprints": {"subject/v1": _fingerprint(finding)},
    }
    if finding.ignored is not None:
        until = moment(finding.ignored.until)
        found["suppressions"] = [
            {
                "kind": "external",
                "status": "accepted",
                "justification": clean(f"{finding.ignored.reason} (until {until})"),
            }
        ]
    return found


def _uri(path: str) -> str:
    """Of a path relative to the checkout, or of one from the root."""
    plain = path.replace("\\", "/")
    while plain.startswith("./"):
        plain = plain[2:]
    encoded = quote(plain.encode("utf-8", "replace"), safe="/-._~")
    return f"file://{encoded}" if encoded.startswith("/") else encoded


def _fingerprint(finding: Finding) -> str:
    """The same while it is about the same thing: ages in sentences grow."""
    about = finding.problem
    known = [finding.rule, about.key_id, about.name, about.lineage, about.sink]
    return hashlib.sha256(json.dumps(known).encode()).hexdigest()[:32]
