"""Options that several verbs of `lamp keys` share."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import click

from lamplighter.cli.errors import USAGE, Failure

if TYPE_CHECKING:
    from lamplighter.cli.keys.common import KeySession
    from lamplighter.keys.records import Scope

F = TypeVar("F", bound=Callable[..., Any])


class Span(click.ParamType[timedelta]):
    """A span of time as a policy has it: `90d`, `1h30m`."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        if isinstance(value, timedelta):
            return value
        from lamplighter.keys.duration import parse_duration  # noqa: PLC0415 - `--help` does without
        from lamplighter.keys.errors import PolicyError  # noqa: PLC0415 - the same

        try:
            return parse_duration(value)
        except PolicyError as error:
            self.fail(error.message, param, ctx)


class AddressOrName(click.ParamType[str]):
    """A sink: its name in the policy, or its address."""

    name = "sink"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not value:
            self.fail("it is empty: give the address of a store, such as dotenv:.env#NEON_API_KEY", param, ctx)
        return str(value)


to_option = click.option(
    "--to",
    "places",
    type=AddressOrName(),
    multiple=True,
    metavar="SINK",
    help="A store that gets the key: its address, such as dotenv:.env#NEON_API_KEY or github:OWNER/REPO/NAME, with "
    "options as in 'github-org:ORG/NAME?visibility=private', or its name in the policy. May be given several times.",
)
org_option = click.option("--org-id", metavar="ID", help="The organization.")


def rotating(function: F) -> F:
    """The options of a verb that rotates: how to prove, how long to wait."""
    for option in reversed(
        (
            click.option(
                "--smoke",
                metavar="COMMAND",
                help="A shell command that has to end with 0 once every store has the key; it does not see the key. "
                "After it failed, `recover` runs it again.",
            ),
            click.option(
                "--allow", multiple=True, metavar="NAME", help="A variable that the smoke command and hooks may see."
            ),
            click.option(
                "--consumer",
                type=Span(),
                metavar="DURATION",
                help="Wait so long for somebody else to use the new key, as Neon sees it.",
            ),
            click.option(
                "--soak",
                type=Span(),
                metavar="DURATION",
                help="How long the old key stays, also in a soak under way. [default: of the policy, the longest that "
                "a store asks for]",
            ),
            click.option(
                "--wait/--no-wait",
                default=True,
                show_default=True,
                help="Whether to stay until the soak is over; else `recover` or the next run ends it.",
            ),
            click.option("--before", metavar="COMMAND", help="A shell command before each step; its failure stops it."),
            click.option("--after", metavar="COMMAND", help="A shell command after each step."),
            click.option(
                "--take-over",
                is_flag=True,
                help="Go on although a key of this name is live that the journal does not know.",
            ),
        )
    ):
        function = option(function)
    return function


def scope_from(session: KeySession, kind: str | None, org_id: str | None, project_id: str | None) -> Scope:
    """What a key is to reach: a project where one is named, else an organization, else all that its user does."""
    from lamplighter.keys.records import Scope  # noqa: PLC0415 - `--help` does without

    chosen: Any = kind or ("project" if project_id else "organization" if org_id else "personal")
    if chosen == "personal":
        if org_id or project_id:
            raise Failure("a personal key reaches all that its user does", hint="leave out the ids", status=USAGE)
        return Scope(kind="personal")
    if chosen == "organization":
        if project_id:
            raise Failure("an organization's key reaches all projects", hint="leave out --project-id", status=USAGE)
        return Scope(kind="organization", org_id=org_id or _org_of_policy(session))
    if not project_id:
        raise Failure("it is not said which project the key is to reach", hint="give --project-id", status=USAGE)
    org_id = org_id or session.policy.neon.org_id or session.neon.projects.get(project_id).org_id
    if not org_id:
        raise Failure(
            f"project {project_id} belongs to no organization, and only those have keys for one project",
            hint="leave out --project-id for a key of the account",
            status=USAGE,
        )
    return Scope(kind="project", org_id=org_id, project_id=project_id)


def _org_of_policy(session: KeySession) -> str:
    return session.policy.neon.org_id or session.only_organization()
