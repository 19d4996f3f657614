"""`lamp branches schema` and `lamp branches diff`: what a branch's databases are made of.

A server that does not read schemas itself answers 501; `pg_dump` then reads them over an ordinary connection.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import click

from lamplighter.cli.changed import given
from lamplighter.cli.errors import Failure
from lamplighter.cli.finding import choose_database, find_branch, find_source, parent_of
from lamplighter.cli.groups import Command
from lamplighter.cli.harmless import clean
from lamplighter.cli.output import Column, emit, screen_of, write
from lamplighter.cli.session import Session, api_command
from lamplighter.cli.values import BranchAt, Source

if TYPE_CHECKING:
    from lamplighter.api.models.branches import Branch

_DIFFERENT = 1
_COLOURS = (("+++", "1"), ("---", "1"), ("@@", "36"), ("+", "32"), ("-", "31"))
#: Lines that differ from one dump to the next, or name the programs that made it.
_PASSING = ("\\restrict ", "\\unrestrict ", "-- Dumped from ", "-- Dumped by ")


@dataclass(frozen=True, slots=True)
class Version:
    """A branch, and the point of its history that is meant (None: as it is now)."""

    branch: Branch
    point: str | datetime | None = None

    @property
    def label(self) -> str:
        if self.point is None:
            return self.branch.name
        when = self.point if isinstance(self.point, str) else self.point.isoformat().replace("+00:00", "Z")
        return f"{self.branch.name}@{when}"


@click.command(cls=Command)
@click.argument("source", metavar="[BRANCH[@POINT]]", type=BranchAt(), required=False)
@click.option("--database-name", "--database", "--db", help="The database. [default: the only one]")
@api_command(project=True, branch=True)
def schema(session: Session, *, source: Source | None, database_name: str | None) -> None:
    """Print the schema of a branch's database as SQL.

    \b
    Examples:
      lamp branches schema main
      lamp branches schema main@2026-01-31T12:00:00Z --database-name shop > shop.sql
    """  # noqa: D301 - click wants the character itself
    version = Version(find_branch(session, source.branch if source else None), source.point if source else None)
    database, _ = choose_database(session, version.branch, database=database_name, role=None)
    text = Reader(session).schema(version, database)
    if session.output != "table":
        emit(session, {"database": database, "sql": text}, [Column("database"), Column("sql")])
        return
    _print(text, diff=False)


@click.command(cls=Command)
@click.argument("base", metavar="[BASE[@POINT]]", type=BranchAt(), required=False)
@click.argument("compared", metavar="[BRANCH[@POINT]]", type=BranchAt(), required=False)
@click.option("--database-name", "--database", "--db", help="One database. [default: all]")
@click.option("--exit-code", is_flag=True, help="End with status 1 when there are differences, as diff does.")
@api_command(project=True, branch=True)
def diff(
    session: Session, *, base: Source | None, compared: Source | None, database_name: str | None, exit_code: bool
) -> None:
    """Compare the schemas of two branches.

    It shows what has to be done to BASE to get BRANCH; of one branch alone, what its parent has not. As the second,
    ^self and ^parent are the first branch and its parent.

    \b
    Examples:
      lamp branches diff dev
      lamp branches diff main dev --database-name shop
      lamp branches diff main ^self@2026-01-31T12:00:00Z
    """  # noqa: D301 - click wants the character itself
    old, new = versions(session, base, compared)
    found = list(compare(session, old, new, database=database_name))
    different = [one for one in found if one["diff"] or one["only_on"]]
    if session.output != "table":
        emit(session, found, [Column("database"), Column("only_on"), Column("diff")])
    else:
        for one in different:
            if one["only_on"]:
                session.note(f"Database {one['database']} is on branch {one['only_on']} alone.")
            _print(str(one["diff"] or ""), diff=True)
        if not different:
            session.note(f"The schemas of {old.label} and {new.label} are the same.")
    if exit_code and different:
        click.get_current_context().exit(_DIFFERENT)


def versions(session: Session, base: Source | None, compared: Source | None) -> tuple[Version, Version]:
    """What two arguments, one or none mean: old and new."""
    if base is None or compared is None:
        branch = find_branch(session, base.branch if base else None)
        return Version(parent_of(session, branch)), Version(branch, base.point if base else None)
    old = find_branch(session, base.branch)
    return Version(old, base.point), Version(find_source(session, compared, of=old), compared.point)


def compare(session: Session, old: Version, new: Version, *, database: str | None) -> Iterator[dict[str, str | None]]:
    """For each database its name, the unified diff, and the branch that alone has it."""
    project = session.project_id()
    before = [one.name for one in session.neon.databases.list(project, old.branch.id)]
    after = [one.name for one in session.neon.databases.list(project, new.branch.id)]
    names = [database] if database else sorted({*before, *after})
    if database and database not in (*before, *after):
        raise Failure(f"neither branch has a database {database!r}", hint=f"there are: {', '.join({*before, *after})}")
    reader = Reader(session)
    for name in names:
        alone = next((one.branch.name for one, has in ((old, before), (new, after)) if name not in has), None)
        if alone is not None:
            other = new.branch.name if name in after else old.branch.name
            yield {"database": name, "only_on": other, "diff": None}
        else:
            yield {"database": name, "only_on": None, "diff": reader.difference(old, new, name) or None}


class Reader:
    """Reads schemas: by the server, or by `pg_dump` once that has answered that it does not."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._served = True

    def schema(self, version: Version, database: str) -> str:
        """SQL."""
        from lamplighter.client.errors import NotAvailable  # noqa: PLC0415 - the client is in use

        if self._served:
            try:
                reply = self._session.neon.branches.schema(
                    self._session.project_id(),
                    version.branch.id,
                    database_name=database,
                    **given(at=version.point),
                )
            except NotAvailable:
                if version.point is not None:
                    raise
                self._served = False
            else:
                return reply.sql or ""
        return "\n".join(settled_lines(self._dump(version, database))) + "\n"

    def difference(self, old: Version, new: Version, database: str) -> str:
        """A unified diff; nothing where there is none."""
        from lamplighter.client.errors import NotAvailable  # noqa: PLC0415 - the client is in use

        if self._served:
            try:
                return (
                    self._session.neon.branches.compare_schema(
                        self._session.project_id(),
                        new.branch.id,
                        base=old.branch.id,
                        database_name=database,
                        **given(at=new.point, base_at=old.point),
                    )
                    or ""
                )
            except NotAvailable:
                if old.point is not None or new.point is not None:
                    raise
                self._served = False
        return unified(
            settled_lines(self._dump(old, database)),
            settled_lines(self._dump(new, database)),
            labels=(f"{old.label}/{database}", f"{new.label}/{database}"),
        )

    def _dump(self, version: Version, database: str) -> str:
        from lamplighter.cli.dump import dump_schema  # noqa: PLC0415 - when the server does not do it

        return dump_schema(self._session, version.branch, database)


def settled_lines(dump: str) -> list[str]:
    """A dump's lines without those that change from one dump to the next. Pure."""
    return [line for line in dump.splitlines() if not line.startswith(_PASSING)]


def unified(old: Sequence[str], new: Sequence[str], *, labels: tuple[str, str]) -> str:
    """A unified diff, "" of what is the same. Pure."""
    from difflib import unified_diff  # noqa: PLC0415 - for a fallback only

    lines = unified_diff(old, new, fromfile=labels[0], tofile=labels[1], lineterm="")
    return "".join(f"{line}\n" for line in lines)


def _print(text: str, *, diff: bool) -> None:
    screen = screen_of(sys.stdout)
    if screen.columns is None:
        write(text)
        return
    lines = [clean(line.expandtabs()) for line in text.splitlines()]
    write("".join(f"{coloured(line) if diff and screen.colour else line}\n" for line in lines))


def coloured(line: str) -> str:
    """A line of a diff as git shows it. Pure."""
    code = next((code for start, code in _COLOURS if line.startswith(start)), None)
    return line if code is None else f"\x1b[{code}m{line}\x1b[0m"
