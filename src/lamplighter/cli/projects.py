"""`lamp projects`: projects, and with `permissions` and `transfer` who may reach them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from lamplighter.cli.changed import compute_fields, given, perform
from lamplighter.cli.finding import PAGE, with_org
from lamplighter.cli.groups import NearGroup
from lamplighter.cli.output import Column, emit
from lamplighter.cli.project_access import permissions, transfer
from lamplighter.cli.project_creation import create_project
from lamplighter.cli.session import CONTEXT_FILE, Session, api_command
from lamplighter.cli.shown import PROJECT, PROJECT_DETAILS, below
from lamplighter.cli.text import plural
from lamplighter.cli.values import ComputeSize, Duration, SuspendTimeout

F = TypeVar("F", bound=Callable[..., Any])

_BOOLEANS = ("block_public_connections", "block_vpc_connections", "hipaa")


@click.group(cls=NearGroup)
def projects() -> None:
    """List, create, change and delete projects.

    \b
    Examples:
      lamp projects create --name shop --pg-version 17
      lamp projects list --output json | jq -r '.[].id'
    """  # noqa: D301 - click wants the character itself


projects.add_command(permissions)
projects.add_command(transfer)


def settings_options(function: F) -> F:
    """What a project may be given, and may be changed to."""
    for option in (
        click.option("--history-retention", type=Duration(), help="How far back branches can go, such as 7d."),
        click.option("--hipaa/--no-hipaa", default=None, help="Whether HIPAA rules are kept."),
        click.option(
            "--block-vpc-connections/--no-block-vpc-connections",
            default=None,
            help="Whether connections through VPC endpoints are refused.",
        ),
        click.option(
            "--block-public-connections/--no-block-public-connections",
            default=None,
            help="Whether connections from the internet are refused.",
        ),
        click.option(
            "--suspend-timeout", type=SuspendTimeout(), help="When new computes are suspended: 5m, never, default."
        ),
        click.option("--cu", type=ComputeSize(), help="Compute units of new computes: 2, or a range such as 0.25-2."),
        click.option("--name", help="What to call it."),
    ):
        function = option(function)
    return function


def fields_of(options: dict[str, Any]) -> dict[str, Any]:
    """The fields of the API that the options above stand for; takes them out of `options`. Pure."""
    settings = given(**{name: options.pop(name) for name in _BOOLEANS})
    compute = compute_fields(options.pop("cu"), options.pop("suspend_timeout"))
    return given(
        name=options.pop("name"),
        history_retention_seconds=options.pop("history_retention"),
        settings=settings or None,
        default_endpoint_settings=compute or None,
    )


@projects.command("list")
@click.option("--search", help="Only those whose name or id has this in it.")
@click.option("--shared", is_flag=True, help="Those that others share with you.")
@click.option("--recoverable-only", is_flag=True, help="Deleted projects that can be recovered.")
@api_command(org=True)
def list_(session: Session, *, search: str | None, shared: bool, recoverable_only: bool) -> None:
    """List projects.

    \b
    Examples:
      lamp projects list
      lamp projects list --org-id org-cool-breeze-12345678 --search shop
    """  # noqa: D301 - click wants the character itself
    calls = session.neon.projects
    found: list[Any]
    if shared:
        found = list(calls.list_shared(search=search, limit=100))
    else:
        found = with_org(
            session,
            lambda org_id: list(
                calls.list(search=search, org_id=org_id, recoverable=True if recoverable_only else None, limit=100)
            ),
        )
    deleted = (Column("deleted_at", "deleted"), Column("recoverable_until", "recoverable until"))
    emit(session, found, (*PROJECT, *deleted) if recoverable_only else PROJECT, empty="There are no projects.")


@projects.command()
@settings_options
@click.option("--region-id", help="Where it lives; `lamp regions` lists them.")
@click.option("--pg-version", type=click.IntRange(min=1), help="Major version of PostgreSQL.")
@click.option("--database", help="Name of its first database. [default: neondb]")
@click.option("--role", help="Name of its first role. [default: DATABASE_owner]")
@click.option("--branch-name", help="Name of its first branch. [default: main]")
@click.option(
    "--if-exists",
    type=click.Choice(["create", "return", "fail"]),
    default="create",
    show_default=True,
    help="When there is a project of exactly this --name: make another, use that one, or fail.",
)
@click.option("--set-context", is_flag=True, help="Write a .neon file here, so that later commands use the project.")
@click.option("--psql", "connect", is_flag=True, help="Connect with psql.")
@click.option("--secrets/--no-secrets", default=True, show_default=True, help="Whether passwords are shown.")
@api_command(org=True, waits=True)
def create(
    session: Session, *, if_exists: str, set_context: bool, connect: bool, secrets: bool, **options: Any
) -> None:
    """Create a project.

    It comes with a branch, an endpoint, a role and a database. Its connection string is printed once. Names of
    projects need not be unique, so a script that runs again wants --if-exists return.

    \b
    Examples:
      lamp projects create --name shop
      lamp projects create --name ci --pg-version 16 --cu 0.25-2 --if-exists return --output json
    """  # noqa: D301 - click wants the character itself
    fields = fields_of(options)
    if if_exists != "create" and "name" not in fields:
        raise click.UsageError("--if-exists needs a --name to look for")
    made = create_project(session, fields, options, if_exists=if_exists)
    if set_context:
        link(session, made.project_id, made.org_id)
    made.show(session, secrets=secrets)
    if connect:
        made.connect(session)


def link(session: Session, project_id: str, org_id: str | None) -> None:
    """Write the file that says which project is meant here, as the neon CLI does."""
    import json  # noqa: PLC0415 - `--help` does without

    from lamplighter.files import write_atomic  # noqa: PLC0415 - the same

    path = session.options.context_file or Path(CONTEXT_FILE)
    content = {"orgId": org_id, "projectId": project_id} if org_id else {"projectId": project_id}
    write_atomic(path, (json.dumps(content, indent=2) + "\n").encode(), mode=0o644)
    session.note(f"{path} names project {project_id} from now on.")


@projects.command()
@click.argument("project", metavar="[ID]", required=False)
@api_command(project=True)
def get(session: Session, *, project: str | None) -> None:
    """Show a project.

    \b
    Examples:
      lamp projects get quiet-moon-12345678
    """  # noqa: D301 - click wants the character itself
    emit(session, session.neon.projects.get(session.project_id() if project is None else project), PROJECT_DETAILS)


@projects.command()
@click.argument("project", metavar="[ID]", required=False)
@settings_options
@click.option(
    "--enable-logical-replication", is_flag=True, help="Let computes replicate. Cannot be taken back; computes restart."
)
@api_command(project=True, waits=True, destructive=True)
def update(session: Session, *, project: str | None, enable_logical_replication: bool, **options: Any) -> None:
    """Change a project; what is not given stays.

    \b
    Examples:
      lamp projects update quiet-moon-12345678 --name shop
      lamp projects update --cu 0.25-4 --suspend-timeout never
    """  # noqa: D301 - click wants the character itself
    fields = fields_of(options)
    if enable_logical_replication:
        fields["settings"] = {**fields.get("settings", {}), "enable_logical_replication": True}
    if not fields:
        raise click.UsageError("nothing to change: give at least one option")
    chosen = session.project_id() if project is None else project
    if enable_logical_replication:
        session.confirm([f"logical replication stays on in project {chosen}, and its computes are restarted"])
    reply = perform(
        session,
        f"Changing project {chosen}",
        lambda: session.neon.projects.update(chosen, wait=session.wait, **fields),
    )
    emit(session, reply, below("project", PROJECT_DETAILS))


@projects.command()
@click.argument("project", metavar="ID")
@api_command(destructive=True)
def delete(session: Session, *, project: str) -> None:
    """Delete a project with all that is in it.

    \b
    Examples:
      lamp projects delete quiet-moon-12345678
    """  # noqa: D301 - click wants the character itself
    if not session.yes:
        session.confirm(goes_with(session, project))
    emit(session, session.neon.projects.delete(project), PROJECT)


def goes_with(session: Session, project_id: str) -> list[str]:
    """What a project's deletion takes along, a line each."""
    neon = session.neon
    project = neon.projects.get(project_id)
    branches = list(neon.branches.list(project_id, limit=PAGE))
    endpoints = list(neon.endpoints.list(project_id))
    names = ", ".join(one.name for one in branches[:10]) + (", ..." if len(branches) > 10 else "")
    return [
        f"project {project.name} ({project_id}) is deleted",
        f"with {plural(len(branches), 'branch', 'branches')}: {names}",
        f"and {plural(len(endpoints), 'endpoint')}: {', '.join(one.id for one in endpoints[:10])}"
        + (", ..." if len(endpoints) > 10 else ""),
    ]


@projects.command()
@click.argument("project", metavar="ID")
@api_command(changes=True)
def recover(session: Session, *, project: str) -> None:
    """Bring a deleted project back.

    Servers that can do this keep it for a while.

    \b
    Examples:
      lamp projects list --recoverable-only
      lamp projects recover quiet-moon-12345678
    """  # noqa: D301 - click wants the character itself
    emit(session, session.neon.projects.recover(project), below("project", PROJECT))
