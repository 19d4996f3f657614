"""From what a user wrote to the one thing that is meant: branches, endpoints, databases and roles by exact name or id.

A name never stands for another thing. Raises Failure: status 3 when there is nothing of that name, or several.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from lamplighter.cli.errors import NOT_THERE, USAGE, Failure

if TYPE_CHECKING:
    from lamplighter.api.models.branches import Branch
    from lamplighter.api.models.endpoints import Endpoint
    from lamplighter.cli.session import Session
    from lamplighter.cli.values import Source

R = TypeVar("R")
T = TypeVar("T")

PAGE = 1000
READ_WRITE = "read_write"
_ENDPOINT_ID = re.compile(r"ep-[a-z0-9-]{1,57}", re.ASCII)
_NEAR = 3


def near_hint(wanted: str, names: Iterable[str], *, otherwise: str) -> str:
    """`Did you mean ...?` of names much like the one that was wanted. Pure."""
    from difflib import get_close_matches  # noqa: PLC0415 - for a mistake only

    known = list(dict.fromkeys(names))
    lower = wanted.casefold()
    close = [name for name in known if name.casefold() == lower]
    close += [name for name in get_close_matches(wanted, known, n=_NEAR, cutoff=0.6) if name not in close]
    close += [name for name in known if lower and lower in name.casefold() and name not in close]
    if not close:
        return otherwise
    return f"did you mean {' or '.join(repr(name) for name in close[:_NEAR])}?"


def exactly(wanted: str, found: Sequence[T], *, what: str, where: str, name: Callable[[T], str | None]) -> T:
    """The one of exactly this id, else the only one of this name. `where` ends the sentence of the failure. Pure."""
    by_id = [one for one in found if getattr(one, "id", None) == wanted]
    matching = by_id or [one for one in found if name(one) == wanted]
    if len(matching) == 1:
        return matching[0]
    if matching:
        ids = ", ".join(str(getattr(one, "id", "")) for one in matching)
        raise Failure(
            f"there are several {what}s {wanted!r} {where}", hint=f"name one by its id: {ids}", status=NOT_THERE
        )
    # Endpoints seldom have names: then their ids are what can be given.
    names = [text for one in found if (text := name(one) or getattr(one, "id", None))]
    known = f"there are: {', '.join(names[:10])}" if names else f"there is no {what} {where}"
    hint = near_hint(wanted, names, otherwise=known)
    raise Failure(f"there is no {what} {wanted!r} {where}", hint=hint, status=NOT_THERE)


def find_branch(session: Session, wanted: str | None) -> Branch:
    """As `Session.branch`, with near names in the hint."""
    try:
        return session.branch(wanted)
    except Failure as failure:
        if wanted is not None and failure.exit_code == NOT_THERE:
            names = [one.name for one in session.neon.branches.list(session.project_id(), limit=PAGE)]
            failure.hint = near_hint(wanted, names, otherwise=failure.hint)
        raise


def find_source(session: Session, source: Source, *, of: Branch) -> Branch:
    """The branch that a source means, `^self` and `^parent` being those of `of`."""
    if source.branch == "^self":
        return of
    if source.branch == "^parent":
        return parent_of(session, of)
    return find_branch(session, source.branch)


def parent_of(session: Session, branch: Branch) -> Branch:
    """The parent; a Failure for a root."""
    if branch.parent_id is None:
        raise Failure(f"branch {branch.name!r} has no parent", hint="name another branch", status=NOT_THERE)
    return session.neon.branches.get(session.project_id(), branch.parent_id)


def find_endpoint(session: Session, wanted: str | None) -> Endpoint:
    """The endpoint of this id or name; of None, the branch's read-write one, or the only one it has."""
    from lamplighter.client.errors import NotFound  # noqa: PLC0415 - the client is in use

    project = session.project_id()
    if wanted is None:
        return endpoint_of(session, session.branch(None))
    if _ENDPOINT_ID.fullmatch(wanted):
        try:
            return session.neon.endpoints.get(project, wanted)
        except NotFound:
            pass
    found = list(session.neon.endpoints.list(project))
    return exactly(wanted, found, what="endpoint", where=f"in project {project}", name=lambda one: one.name)


def endpoint_of(session: Session, branch: Branch, *, kind: str | None = None) -> Endpoint:
    """The endpoint of a branch of this type; of None, the read-write one, or the only one there is."""
    found = list(session.neon.branches.endpoints(session.project_id(), branch.id))
    fitting = [one for one in found if one.type == (kind or READ_WRITE)]
    if not fitting and kind is None:
        fitting = found
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        ids = ", ".join(one.id for one in fitting)
        raise Failure(f"branch {branch.name!r} has several endpoints", hint=f"name one: {ids}", status=NOT_THERE)
    sort = f" of type {kind}" if kind else ""
    raise Failure(
        f"branch {branch.name!r} has no endpoint{sort}",
        hint=f"`lamp endpoints create --branch {branch.name} --type {kind or READ_WRITE}` makes one",
        status=NOT_THERE,
    )


def choose_database(session: Session, branch: Branch, *, database: str | None, role: str | None) -> tuple[str, str]:
    """Database and role to connect with: those given, else the only ones, else the database's owner."""
    if database is not None and role is not None:
        return database, role
    project = session.project_id()
    databases = list(session.neon.databases.list(project, branch.id))
    if database is None:
        database = _only([one.name for one in databases], what="database", option="--database-name", branch=branch)
    chosen = exactly(
        database, databases, what="database", where=f"on branch {branch.name!r}", name=lambda one: one.name
    )
    if role is None:
        roles = [one.name for one in session.neon.roles.list(project, branch.id)]
        # A database's owner is a role of its branch, and may do most with it.
        if chosen.owner_name in roles:
            role = chosen.owner_name
        else:
            role = _only(roles, what="role", option="--role-name", branch=branch)
    return database, role


def _only(names: Sequence[str], *, what: str, option: str, branch: Branch) -> str:
    if len(names) == 1:
        return names[0]
    if not names:
        raise Failure(
            f"branch {branch.name!r} has no {what}", hint=f"`lamp {what}s create` makes one", status=NOT_THERE
        )
    raise Failure(
        f"branch {branch.name!r} has several {what}s", hint=f"give {option}: {', '.join(names)}", status=USAGE
    )


def with_org(session: Session, call: Callable[[str | None], R]) -> R:
    """What `call` gives for the organization that is meant: where the server demands one, the only one there is."""
    from lamplighter.client.errors import BadRequest  # noqa: PLC0415 - the client is in use

    try:
        return call(session.org_id())
    except BadRequest as error:
        if "org_id is required" not in str(error):
            raise
    found = list(session.neon.users.organizations())
    if len(found) == 1:
        return call(found[0].id)
    known = ", ".join(f"{one.id} ({one.name})" for one in found)
    raise Failure("the server wants to know which organization is meant", hint=f"give --org-id: {known}", status=USAGE)


def settled(session: Session, reply: Any) -> Any:
    """A reply whose operations were waited for, with branch and endpoints as they are now.

    The reply was written when the work began: it would say `init` of what is ready.
    """
    if not session.wait:
        return reply
    neon, project = session.neon, session.project_id()
    now: dict[str, Any] = {}
    if getattr(reply, "branch", None) is not None:
        now["branch"] = neon.branches.get(project, reply.branch.id)
        if getattr(reply, "endpoints", None):
            now["endpoints"] = list(neon.branches.endpoints(project, reply.branch.id))
    if getattr(reply, "endpoint", None) is not None:
        now["endpoint"] = neon.endpoints.get(project, reply.endpoint.id)
    return reply.model_copy(update=now) if now else reply
