"""Extension control files, read and changed. Pure.

The grammar is that of postgresql.conf: `name = value` or `name value`, `#` comments, values in single quotes where
needed, a quote inside doubled or after a backslash; the last line for a name counts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_LINE = re.compile(
    r"^\s*(?P<name>[A-Za-z_][A-Za-z0-9_]*)\s*(?:=\s*|\s)\s*(?P<value>'(?:''|\\.|[^'\\])*'|[^\s#']+)?\s*(?:#.*)?$"
)
_TRUE = ("true", "on", "yes", "1")


@dataclass(frozen=True, slots=True)
class Control:
    """What we need to know of an extension."""

    version: str | None
    trusted: bool
    superuser: bool
    #: The library without its directory and `.so`, when the control file names one.
    module: str | None
    requires: tuple[str, ...]


def parse_values(text: str) -> dict[str, str]:
    """All settings of a control file, unquoted. Lines that are none are passed over."""
    values: dict[str, str] = {}
    for line in text.splitlines():
        match = _LINE.match(line)
        if match is not None and match["value"] is not None:
            values[match["name"]] = _unquoted(match["value"])
    return values


def parse_control(text: str) -> Control:
    """The settings that matter, with Postgres's defaults for those that are not there."""
    values = parse_values(text)
    module = values.get("module_pathname")
    return Control(
        version=values.get("default_version"),
        trusted=values.get("trusted", "false").lower() in _TRUE,
        superuser=values.get("superuser", "true").lower() in _TRUE,
        module=module.rpartition("/")[2].removesuffix(".so") if module else None,
        requires=tuple(name.strip() for name in values.get("requires", "").split(",") if name.strip()),
    )


def with_trusted(text: str, *, trusted: bool) -> str:
    """The same file with `trusted` as told. Applied again it changes nothing; every other line stays as it is."""
    if parse_control(text).trusted == trusted:
        return text
    kept = [line for line in text.splitlines() if not _names_trusted(line)]
    if trusted:
        kept.append("trusted = true")
    return "\n".join(kept) + "\n"


def _names_trusted(line: str) -> bool:
    match = _LINE.match(line)
    return match is not None and match["name"] == "trusted"


def _unquoted(value: str) -> str:
    if not value.startswith("'"):
        return value
    return re.sub(r"''|\\(.)", lambda match: match[1] or "'", value[1:-1])
