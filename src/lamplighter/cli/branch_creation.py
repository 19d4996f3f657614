"""Make a branch, or find the one of exactly that name: what `lamp branches create` does."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from lamplighter.cli.changed import given, perform
from lamplighter.cli.connections import parts_of
from lamplighter.cli.errors import Failure, failure_of
from lamplighter.cli.finding import PAGE, READ_WRITE, find_branch, settled
from lamplighter.cli.output import SHOWN, Column, emit, plain_of
from lamplighter.cli.shown import below, branch_columns

if TYPE_CHECKING:
    from lamplighter.api.models.branches import Branch
    from lamplighter.cli.session import Session

_NO = frozenset({"", "0", "false", "no", "off"})

_COLUMNS = (
    *below("branch", branch_columns()),
    Column("endpoints.0.id", "endpoint"),
    Column("connection_uris.0.connection_uri", "connection"),
    Column("created", "new"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """The branch that is wanted. `parent` is a name or id; `endpoint` the fields of its endpoint, None for none."""

    name: str | None
    parent: str | None = None
    at: str | datetime | None = None
    protected: bool | None = None
    schema_only: bool = False
    expires_at: datetime | None = None
    endpoint: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Made:
    """A branch that was made or found, as JSON."""

    plain: dict[str, Any]

    def show(self, session: Session, *, secrets: bool) -> None:
        """Print it; with its connection string, as this is when that is given out."""
        emit(session, self.plain, _COLUMNS, secrets=secrets)

    def connect(self, session: Session) -> None:
        """Become psql. Raises Failure when there is no connection string to connect with."""
        from lamplighter.cli.psql import run_psql  # noqa: PLC0415 - for this option only

        uris = self.plain.get("connection_uris")
        if not uris or uris[0]["connection_uri"] == SHOWN:
            name = self.plain["branch"]["name"]
            raise Failure(
                "it is open which role and database to connect with", hint=f"lamp psql {name} --role-name ..."
            )
        run_psql(session, parts_of(uris[0]["connection_uri"]), None, ())


def in_ci() -> bool:
    """Whether this runs in CI, as nearly every service says by the variable CI."""
    return os.environ.get("CI", "").lower() not in _NO


def create_branch(session: Session, wish: Wish, *, if_exists: str | None, ci: bool) -> Made:
    """The branch that is wished for. Raises Failure, and what the SDK raises."""
    from lamplighter.client.errors import Conflict  # noqa: PLC0415 - the client is in use

    parent = find_branch(session, wish.parent) if wish.parent is not None else None
    if wish.name is not None and (if_exists or ("return" if ci else "fail")) == "return":
        return _get_or_make(session, wish, wish.name, parent, said=if_exists is not None)
    try:
        reply = perform(
            session,
            f"Creating branch {wish.name}" if wish.name else "Creating a branch",
            lambda: session.neon.branches.create(
                session.project_id(), wait=session.wait, **given(name=wish.name), **_fields(wish, parent)
            ),
        )
    except Conflict as conflict:
        there = _of_name(session, wish.name)
        if there is None:
            raise
        raise _already(conflict, there) from conflict
    return Made({**plain_of(settled(session, reply)), "created": True})


def _get_or_make(session: Session, wish: Wish, name: str, parent: Branch | None, *, said: bool) -> Made:
    found = perform(
        session,
        f"Creating branch {name}",
        lambda: session.neon.branches.get_or_create(
            session.project_id(), name=name, wait=session.wait, **_fields(wish, parent)
        ),
    )
    if found.created:
        return Made({**plain_of(settled(session, found.reply)), "created": True})
    there = found.branch
    because = "" if said else " (CI is set; --if-exists fail makes this an error)"
    session.note(f"Branch {there.name} was there already: {there.id}. It is used as it is{because}.")
    return _found(session, there, wish, parent)


def _fields(wish: Wish, parent: Branch | None) -> dict[str, Any]:
    return given(
        parent=parent.id if parent else None,
        at=wish.at,
        protected=wish.protected,
        init_source="schema-only" if wish.schema_only else None,
        expires_at=wish.expires_at,
        endpoints=[dict(wish.endpoint)] if wish.endpoint is not None else None,
    )


def _already(conflict: Exception, there: Branch) -> Failure:
    failure = failure_of(conflict)
    assert failure is not None
    failure.hint = f"it is {there.id}; --if-exists return uses it"
    return failure


def _of_name(session: Session, name: str | None) -> Branch | None:
    """The branch of exactly this name: a search finds others as well."""
    if name is None:
        return None
    found = session.neon.branches.list(session.project_id(), search=name, limit=PAGE)
    return next((one for one in found if one.name == name), None)


def _found(session: Session, there: Branch, wish: Wish, parent: Branch | None) -> Made:
    """The same reply that its creation gave, of the branch that is there."""
    neon, project = session.neon, session.project_id()
    for sentence in differences(there, wish, parent_id=parent.id if parent else None):
        session.note(f"Note: {sentence}")
    endpoints = list(neon.branches.endpoints(project, there.id))
    roles = list(neon.roles.list(project, there.id))
    databases = list(neon.databases.list(project, there.id))
    if wish.endpoint is not None and not endpoints:
        session.note("Note: it has no endpoint; `lamp branches add-compute` adds one")
    told: dict[str, Any] = {
        "branch": there,
        "endpoints": endpoints,
        "operations": [],
        "roles": roles,
        "databases": databases,
    }
    read_write = next((one for one in endpoints if one.type == READ_WRITE), None)
    if read_write is not None and len(roles) == 1 and len(databases) == 1:
        place = (there.id, read_write.id, databases[0].name, roles[0].name)
        told["connection_uris"] = [_connection(session, *place)]
    return Made({**plain_of(told), "created": False})


def differences(there: Branch, wish: Wish, *, parent_id: str | None) -> list[str]:
    """In what the branch that is there is not the one that was asked for. Pure."""
    said = []
    if parent_id is not None and there.parent_id != parent_id:
        said.append(f"its parent is {there.parent_id or 'nothing'}, not {parent_id}")
    if wish.at is not None:
        said.append("the point that it begins from was not compared")
    if wish.protected and not there.protected:
        said.append("it is not protected")
    if wish.schema_only and there.init_source != "schema-only":
        said.append("it was not made without rows")
    if wish.expires_at is not None and there.expires_at != wish.expires_at:
        when = f"expires at {there.expires_at:%Y-%m-%dT%H:%M:%SZ}" if there.expires_at else "does not expire"
        said.append(f"it {when}; `lamp branches set-expiration` changes that")
    return said


def _connection(session: Session, branch_id: str, endpoint_id: str, database: str, role: str) -> dict[str, Any]:
    """An entry of `connection_uris`, as a creation has it."""

    def ask(*, pooled: bool) -> str:
        return session.neon.projects.connection_uri(
            session.project_id(),
            branch_id=branch_id,
            endpoint_id=endpoint_id,
            database_name=database,
            role_name=role,
            pooled=True if pooled else None,
        )

    uri = ask(pooled=False)
    parts = parts_of(uri)
    return {
        "connection_uri": uri,
        "connection_parameters": {
            "database": parts.database,
            "password": parts.password,
            "role": parts.role,
            "host": parts.address,
            "pooler_host": parts_of(ask(pooled=True)).address,
        },
    }
