"""`lamp branches tree`: parents and children, drawn."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import click

from lamplighter.cli.finding import PAGE
from lamplighter.cli.groups import Command
from lamplighter.cli.output import Column, emit, plain_of
from lamplighter.cli.session import Session, api_command
from lamplighter.cli.shown import age, marks
from lamplighter.cli.text import NOTHING
from lamplighter.cli.tree import ASCII, UNICODE, Node, Style, draw


@click.command(cls=Command)
@api_command(project=True)
def tree(session: Session) -> None:
    """Draw the branches of a project below their parents.

    Programs get the branches in the same order, each with its depth.

    \b
    Examples:
      lamp branches tree
      lamp branches tree --output json | jq -r '.[] | "\\(.depth) \\(.name)"'
    """  # noqa: D301 - click wants the character itself
    found = plain_of(list(session.neon.branches.list(session.project_id(), limit=PAGE)))
    now = datetime.now(UTC)
    rows = rows_of(found, style=style_of(sys.stdout.encoding))
    if session.output != "table":
        columns = [Column(name) for name in ("id", "name", "depth", "parent_id", "default", "protected")]
        columns += [Column(name) for name in ("current_state", "created_at", "expires_at")]
        emit(session, [{name: value for name, value in row.items() if name != "drawn"} for row in rows], columns)
        return
    emit(
        session,
        rows,
        [
            Column("drawn", "branch"),
            Column("current_state", "state"),
            Column("created_at", "age", show=lambda value: age(value, now)),
            Column("expires_at", "expires"),
            Column("id"),
        ],
        empty="There are no branches.",
    )


def style_of(encoding: str | None) -> Style:
    """Lines where the output can show them, else ASCII. Pure."""
    try:
        UNICODE.child.encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return ASCII
    return UNICODE


def rows_of(branches: Sequence[dict[str, Any]], *, style: Style) -> list[dict[str, Any]]:
    """The branches from top to bottom, oldest first, with `depth` and what a table shows, `drawn`. Pure."""
    ordered = sorted(branches, key=lambda one: (one.get("created_at") or "", one["name"]))
    nodes = [Node(one["id"], one.get("parent_id")) for one in ordered]
    rows = []
    for line in draw(nodes, style=style):
        branch = ordered[line.index]
        astray = f" (parent {branch.get('parent_id') or NOTHING} is not shown)" if line.astray else ""
        drawn = f"{line.prefix}{branch['name']}{marks(branch)}{astray}"
        rows.append({**branch, "depth": line.depth, "drawn": drawn})
    return rows
