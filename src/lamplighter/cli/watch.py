"""`lamp watch`: what happens in a project, as it happens."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from lamplighter.cli.finding import PAGE, find_branch
from lamplighter.cli.groups import Command
from lamplighter.cli.harmless import clean, escape_json
from lamplighter.cli.output import plain_of, write
from lamplighter.cli.session import Session, api_command
from lamplighter.cli.text import plural
from lamplighter.cli.values import Duration
from lamplighter.cli.watching import LONGEST, SHORTEST, Change, Look, as_dict, as_text, changes, next_pause

if TYPE_CHECKING:
    from lamplighter.api.models.operations import Operation

_PAGE = 100
#: Of operations: who starts more between two looks than are on these is not watching.
_PAGES = 10


@click.command(cls=Command)
@click.option("--for", "seconds", type=Duration(), help="For how long. [default: until Ctrl-C]")
@click.option("--until-idle", is_flag=True, help="Until no operation is under way and no endpoint changes.")
@api_command(project=True, branch=True)
def watch(session: Session, *, seconds: int | None, until_idle: bool) -> None:
    """Show operations and states of endpoints as they change, a line each.

    With --output json a line is a JSON object. It looks often while something happens and seldom otherwise, within the
    limits of the API. With --branch it shows that branch alone.

    \b
    Examples:
      lamp watch
      lamp watch --branch dev --until-idle
      lamp watch --output json | jq -c 'select(.state == "failed")'
    """  # noqa: D301 - click wants the character itself
    if session.output not in ("table", "json"):
        raise click.UsageError("lamp watch prints lines for people, or --output json")
    watcher = Watcher(session)
    look = watcher.first()
    end = None if seconds is None else time.monotonic() + seconds
    pause = SHORTEST
    while not (until_idle and look.idle):
        left = LONGEST if end is None else end - time.monotonic()
        if left <= 0:
            return
        time.sleep(min(pause, left))
        after = watcher.again(look)
        found = changes(look, after)
        watcher.show(found)
        pause = next_pause(pause, changed=bool(found))
        look = after


class Watcher:
    """Looks at a project, or at one branch of it, and prints what changed."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._project = session.project_id()
        self._branch = find_branch(session, session.options.branch) if session.options.branch else None
        self._names: dict[str, str] = {}
        self._silent = False

    def first(self) -> Look:
        """What is there already: it is told in one sentence, not line by line."""
        look = Look(self._endpoints(), self._operations(Look()))
        where = f"branch {self._branch.name}" if self._branch else f"project {self._project}"
        endpoints, operations = plural(len(look.endpoints), "endpoint"), plural(len(look.under_way), "operation")
        self._session.note(f"Watching {where}: {endpoints}, {operations} under way.")
        return look

    def again(self, before: Look) -> Look:
        """What is there now. While the server cannot be reached, what was there before: it is told once."""
        from lamplighter.client.errors import ConnectionFailed, ServerError  # noqa: PLC0415 - the client is in use

        try:
            # Operations first: an endpoint whose operation is seen to have ended is then seen in its new state.
            operations = self._operations(before)
            look = Look(self._endpoints(), {**before.operations, **operations})
        except (ConnectionFailed, ServerError) as error:
            if not self._silent:
                self._session.note(f"The server does not answer; trying again: {error}")
            self._silent = True
            return before
        if self._silent:
            self._session.note("The server answers again.")
        self._silent = False
        return look

    def show(self, found: list[Change]) -> None:
        """Print what changed."""
        now = datetime.now(UTC)
        for change in found:
            if self._session.output == "json":
                write(escape_json(json.dumps(as_dict(change, at=now), ensure_ascii=False)) + "\n")
            else:
                self._learn_name(change.branch_id)
                write(clean(as_text(change, at=now.astimezone(), branches=self._names)) + "\n")

    def _endpoints(self) -> dict[str, dict[str, Any]]:
        neon = self._session.neon
        found = (
            neon.endpoints.list(self._project)
            if self._branch is None
            else neon.branches.endpoints(self._project, self._branch.id)
        )
        return {one.id: plain_of(one) for one in found}

    def _operations(self, before: Look) -> dict[str, dict[str, Any]]:
        """Those of the first page, and of more pages while there may be one that is new or was under way."""
        found = {}
        missing = set(before.under_way)
        for page in self._pages():
            for one in page:
                missing.discard(one.id)
                if self._branch is None or one.branch_id == self._branch.id:
                    found[one.id] = plain_of(one)
            known = any(one.id in before.operations for one in page)
            if not before.operations or (known and not missing):
                break
        return found

    def _pages(self) -> Iterator[list[Operation]]:
        pages = self._session.neon.operations.list(self._project, limit=_PAGE).pages()
        for _, page in zip(range(_PAGES), pages, strict=False):
            yield page.items

    def _learn_name(self, branch_id: str | None) -> None:
        """Names of branches, read when one is seen that is not known yet."""
        if branch_id is None or branch_id in self._names:
            return
        for one in self._session.neon.branches.list(self._project, limit=PAGE):
            self._names[one.id] = one.name
        # A deleted branch is not listed: it is asked for once only.
        self._names.setdefault(branch_id, branch_id)
