"""Branches for tests: made with an endpoint and an end, kept alive while they are in use, removed.

Each has `expires_at`, so that the server itself deletes what a run that was killed left behind; the sweep is for
servers that are late with that.
"""

from __future__ import annotations

import secrets
import string
import warnings
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from lamplighter.client.errors import Ambiguous, APIError, NeonError, NotFound
from lamplighter.testing import naming
from lamplighter.testing.dsn import Dsn
from lamplighter.testing.turns import Turns

if TYPE_CHECKING:
    from lamplighter import Neon
    from lamplighter.api.models.branches import Branch, BranchCreated

#: More patience than usual: tests of another run, or on another machine, may keep the project busy.
_RETRIES = 20
_DEADLINE = 180.0
#: For the operations of a removal. What is left of them then goes on by itself.
_REMOVAL_SECONDS = 60.0

_WHICH_PROJECT = "say which one: --neon-project ID, neon_project in pytest's configuration, or NEON_PROJECT_ID"
_ALPHABET = string.ascii_lowercase + string.digits


class NoProject(NeonError):
    """It is not clear in which project to make branches."""


class NoParent(NeonError):
    """There is no branch of the name that branches are to be made of."""


class NoDatabase(NeonError):
    """It is not clear which database and role a connection string is to name."""


class BranchLeft(UserWarning):
    """A branch of a test could not be removed, or not be kept; the server deletes it when its time is over."""


@dataclass(frozen=True, slots=True, repr=False)
class NeonBranch:
    """A branch that a test has for itself, with a read-write endpoint that takes connections.

    `connection_string` is a `str` that hides its password when it is printed with `repr`. `branch` is the API's model
    as it was when the branch was made.
    """

    id: str
    name: str
    project_id: str
    endpoint_id: str
    connection_string: Dsn
    branch: Branch = field(compare=False)

    @property
    def dsn(self) -> Dsn:
        """The connection string, by the name that drivers know it under."""
        return self.connection_string

    def __repr__(self) -> str:
        return f"<NeonBranch {self.id} {self.name!r} {self.connection_string!r}>"


@dataclass(frozen=True, slots=True, kw_only=True)
class BranchOptions:
    """How branches are made. `parent` is an id or a name; None means the project's default branch."""

    parent: str | None = None
    ttl: timedelta = naming.DEFAULT_TTL
    schema_only: bool = False
    database: str | None = None
    role: str | None = None


def choose_project(neon: Neon) -> str:
    """The context's project, else the only one that the key can see. Raises NoProject, or what the server says."""
    server = neon.server
    if server.project_id is not None:
        return server.project_id
    try:
        found = neon.projects.list(org_id=server.org_id, limit=2).page().items
    except APIError as error:
        raise NoProject(f"the projects of {server} cannot be listed: {error}", hint=_WHICH_PROJECT) from None
    if not found:
        raise NoProject(
            f"there is no project on {server} to make branches in", hint="make one with neon.projects.create"
        )
    if len(found) > 1:
        raise NoProject(f"there are several projects on {server}", hint=_WHICH_PROJECT)
    return found[0].id


class BranchMaker:
    """Makes and removes the branches of one process's tests in one project."""

    def __init__(
        self, neon: Neon, *, project_id: str, worker: str, options: BranchOptions, turns: Turns | None = None
    ) -> None:
        self._neon = neon.with_options(retries=_RETRIES, deadline=_DEADLINE)
        self._turns = turns or Turns()
        self._project_id = project_id
        self._worker = worker
        self._options = options
        self._parent_id: str | None = None
        self._expiries: dict[str, datetime] = {}

    def make(self, label: str) -> NeonBranch:
        """A new branch whose endpoint is active. Raises NeonError."""
        parent = self._parent()
        with self._turns.take():
            made, expires_at = self._create(parent, label)
            # From here on it is ours to remove, whatever comes of its operations.
            self._expiries[made.branch.id] = expires_at
            try:
                self._neon.operations.wait(self._project_id, made.operations)
                connection_string = self._connection_string(made)
            except BaseException:
                self._delete(made.branch.id)
                raise
        return NeonBranch(
            id=made.branch.id,
            name=made.branch.name,
            project_id=self._project_id,
            endpoint_id=made.endpoints[0].id,
            connection_string=Dsn(connection_string),
            branch=made.branch,
        )

    def _create(self, parent: str | None, label: str) -> tuple[BranchCreated, datetime]:
        token = "".join(secrets.choice(_ALPHABET) for _ in range(naming.TOKEN_LENGTH))
        # Now, not before the turn: the time begins with the branch.
        expires_at = datetime.now(UTC) + self._options.ttl
        made = self._neon.branches.create(
            self._project_id,
            name=naming.branch_name(worker=self._worker, token=token, label=label),
            parent=parent,
            init_source="schema-only" if self._options.schema_only else None,
            expires_at=expires_at,
            endpoints=[{"type": "read_write"}],
            annotation=naming.mark(token),
        )
        return made, expires_at

    def _connection_string(self, made: BranchCreated) -> str:
        options = self._options
        if made.connection_uris and options.database is None and options.role is None:
            return made.connection_uris[0].connection_uri
        try:
            return self._neon.connection_string(
                self._project_id,
                branch=made.branch.id,
                endpoint=made.endpoints[0].id,
                database=options.database,
                role=options.role,
            )
        except Ambiguous as error:
            hint = "say which is meant: --neon-branch-database NAME, --neon-branch-role NAME"
            raise NoDatabase(error.message, hint=hint) from None

    def _parent(self) -> str | None:
        wanted = self._options.parent
        if wanted is None or naming.is_branch_id(wanted):
            return wanted
        if self._parent_id is None:
            fitting = [
                one.id for one in self._neon.branches.list(self._project_id, search=wanted) if one.name == wanted
            ]
            if not fitting:
                raise NoParent(f"there is no branch {wanted!r} in {self._project_id}", hint="look at --neon-parent")
            self._parent_id = fitting[0]
        return self._parent_id

    def remove(self, branch_id: str) -> None:
        """Delete a branch; it is fine if the test did. What cannot be deleted stays until its time, with a warning."""
        with self._turns.take():
            self._delete(branch_id)

    def _delete(self, branch_id: str) -> None:
        self._expiries.pop(branch_id, None)
        try:
            # Waited for: the next branch would only find the project busy.
            self._neon.branches.delete(self._project_id, branch_id, wait=_REMOVAL_SECONDS)
        except NotFound:
            pass
        except NeonError as error:
            warnings.warn(
                f"the branch {branch_id} could not be removed, and stays until it expires: {error}",
                BranchLeft,
                stacklevel=3,
            )

    def keep_alive(self) -> None:
        """Give branches that are past half of their time a new one: a session may be longer than that."""
        now = datetime.now(UTC)
        for branch_id, expires_at in list(self._expiries.items()):
            if expires_at - now > self._options.ttl / 2:
                continue
            # Asked once for each half, whatever comes of it: not before every test that follows.
            self._expiries[branch_id] = now + self._options.ttl
            try:
                self._neon.branches.update(self._project_id, branch_id, expires_at=now + self._options.ttl)
            except NotFound:
                del self._expiries[branch_id]
            except NeonError as error:
                text = f"the branch {branch_id} expires at {expires_at:%H:%M:%S} UTC, and could not be kept: {error}"
                warnings.warn(text, BranchLeft, stacklevel=2)

    def sweep(self) -> list[str]:
        """Delete what earlier runs left and whose time is over; answers the ids. A failure is a warning."""
        swept = []
        try:
            for branch_id in self._overdue():
                self.remove(branch_id)
                swept.append(branch_id)
        except NeonError as error:
            warnings.warn(f"branches of earlier runs could not be looked for: {error}", BranchLeft, stacklevel=2)
        return swept

    def _overdue(self) -> list[str]:
        """Newest first: of a branch and one made of it, the latter has to go before the former can."""
        now = datetime.now(UTC)
        found: list[Branch] = []
        for page in self._neon.branches.list(self._project_id, search=naming.PREFIX).pages():
            annotations = page.reply.annotations
            for branch in page.items:
                annotation = annotations.get(branch.id)
                seen = naming.Seen(
                    name=branch.name,
                    annotation=annotation.value if annotation else {},
                    default=branch.default,
                    protected=branch.protected,
                    expires_at=branch.expires_at,
                )
                if naming.may_sweep(seen, now=now):
                    found.append(branch)
        return [branch.id for branch in sorted(found, key=lambda branch: branch.created_at, reverse=True)]
