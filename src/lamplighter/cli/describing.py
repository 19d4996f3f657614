"""What `lamp api --describe` says to people. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from lamplighter.cli.text import table


def description_text(facts: Mapping[str, Any]) -> str:
    """What `catalogue.described` gave, as text."""
    marks = [] if facts["served"] else ["Lamplighter's own server answers 501"]
    marks += ["deprecated"] if facts["deprecated"] else []
    lines = [f"{facts['id']}: {facts['method']} {facts['path']}"]
    lines += [f"  {facts['text']}", f"  In the SDK: neon.{facts['name']}(...)"]
    lines.append(f"  Kinds of key: {', '.join(facts['keys'])}" + (f"; {', '.join(marks)}" if marks else ""))
    lines += _section("Path and query", facts["parameters"], where=True)
    if facts["body_media"]:
        need = "required" if facts["body_required"] else "optional"
        lines += _section(f"Body ({facts['body_media']}, {need})", facts["body"])
    status = ", ".join(map(str, facts["status"]))
    lines += _section(f"Answer ({status}, {facts['reply_media']})", facts["reply"], brief=True)
    return "\n".join(lines) + "\n"


def _section(title: str, rows: Sequence[Mapping[str, Any]], *, where: bool = False, brief: bool = False) -> list[str]:
    if not rows:
        return []
    shown = [row for row in rows if not brief or row["name"].count(".") < 2]
    cells = [(row["name"], row["type"], _remarks(row, where=where, brief=brief)) for row in shown]
    return ["", title + ":", *(f"  {line}" for line in table(("NAME", "TYPE", ""), cells))]


def _remarks(row: Mapping[str, Any], *, where: bool, brief: bool) -> str:
    remarks = [row["in"]] if where else []
    if brief:
        return ""
    if row["required"]:
        remarks.append("required")
    if row["default"] is not None:
        remarks.append(f"default {json.dumps(row['default'])}")
    if row.get("deprecated"):
        remarks.append("deprecated")
    return ", ".join(remarks)
