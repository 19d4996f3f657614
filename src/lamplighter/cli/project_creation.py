"""Make a project, or find the one of that name: what `lamp projects create` does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lamplighter.cli.changed import given, perform
from lamplighter.cli.connections import parts_of
from lamplighter.cli.errors import CONFLICT, Failure
from lamplighter.cli.finding import with_org
from lamplighter.cli.output import SHOWN, Column, emit, plain_of
from lamplighter.cli.shown import PROJECT, below

if TYPE_CHECKING:
    from lamplighter.api.models.projects import ProjectCreated
    from lamplighter.cli.session import Session
    from lamplighter.client.results import ProjectFound

_COLUMNS = (
    *below("project", PROJECT),
    Column("branch.id", "branch"),
    Column("endpoints.0.id", "endpoint"),
    Column("connection_uris.0.connection_uri", "connection"),
)


@dataclass(frozen=True, slots=True)
class Made:
    """A project that was made or found, as JSON."""

    plain: dict[str, Any]

    @property
    def project_id(self) -> str:
        return str(self.plain["project"]["id"])

    @property
    def org_id(self) -> str | None:
        found = self.plain["project"].get("org_id")
        return None if found is None else str(found)

    def show(self, session: Session, *, secrets: bool) -> None:
        """Print it; with its passwords, as this is when they are given out."""
        columns = _COLUMNS if self.plain["created"] else below("project", PROJECT)
        emit(session, self.plain, columns, secrets=secrets)

    def connect(self, session: Session) -> None:
        """Become psql. Raises Failure when there is no connection string to connect with."""
        from lamplighter.cli.psql import run_psql  # noqa: PLC0415 - for this option only

        uris = self.plain.get("connection_uris")
        if not uris or uris[0]["connection_uri"] == SHOWN:
            raise Failure("the server gave no connection string", hint=f"lamp psql --project-id {self.project_id}")
        run_psql(session, parts_of(uris[0]["connection_uri"]), None, ())


def create_project(session: Session, fields: dict[str, Any], options: dict[str, Any], *, if_exists: str) -> Made:
    """What the options ask for. Raises Failure."""
    first = given(name=options["branch_name"], database_name=options["database"], role_name=options["role"])
    wanted = {
        **fields,
        **given(region_id=options["region_id"], pg_version=options["pg_version"], branch=first or None),
    }
    if if_exists == "fail" and (found := _of_name(session, fields["name"])):
        raise Failure(
            f"there is a project {fields['name']!r} already: {', '.join(one.id for one in found)}",
            hint="--if-exists return uses it",
            status=CONFLICT,
        )
    reply: Any = None
    if if_exists == "return":
        made = perform(session, "Creating a project", lambda: with_org(session, _finder(session, wanted)))
        if not made.created:
            session.note(f"Project {made.project.name} was there already: {made.project.id}. It is used as it is.")
            project = plain_of(session.neon.projects.get(made.project.id))
            return Made({"project": project, "operations": [], "created": False})
        reply = made.reply
    else:
        reply = perform(session, "Creating a project", lambda: with_org(session, _maker(session, wanted)))
    return Made({**plain_of(_settled(session, reply)), "created": True})


def _finder(session: Session, fields: dict[str, Any]) -> Callable[[str | None], ProjectFound]:
    return lambda org_id: session.neon.projects.get_or_create(org_id=org_id, wait=session.wait, **fields)


def _maker(session: Session, fields: dict[str, Any]) -> Callable[[str | None], ProjectCreated]:
    return lambda org_id: session.neon.projects.create(**given(org_id=org_id), wait=session.wait, **fields)


def _settled(session: Session, reply: Any) -> Any:
    """With branch and endpoints as they are now: the reply was written when the work began."""
    if not session.wait:
        return reply
    neon, project_id = session.neon, reply.project.id
    now = {
        "branch": neon.branches.get(project_id, reply.branch.id),
        "endpoints": list(neon.branches.endpoints(project_id, reply.branch.id)),
    }
    return reply.model_copy(update=now)


def _of_name(session: Session, name: str) -> list[Any]:
    """The projects of exactly this name."""
    return with_org(
        session,
        lambda org_id: [
            one for one in session.neon.projects.list(search=name, org_id=org_id, limit=100) if one.name == name
        ],
    )
