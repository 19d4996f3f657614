"""What a command that talks to a server has at hand: the client, and what its common options say.

`api_command` adds the options and passes a `Session` first. Nothing heavy is imported before the client is used.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from lamplighter.cli.errors import FAILED, NOT_THERE, USAGE, Failure, failure_of
from lamplighter.cli.groups import CommonOption
from lamplighter.cli.harmless import clean
from lamplighter.cli.output import OUTPUTS, Output

if TYPE_CHECKING:
    from lamplighter import Neon
    from lamplighter.api.models.branches import Branch

R = TypeVar("R")

CONTEXT_FILE = ".neon"
WAIT_SECONDS = 300.0
_LINKED = ("projectId", "orgId", "branch", "branchId")
_NOT_EMPTY = ("project_id", "org_id", "branch", "api_host", "context")
_BRANCH_ID = re.compile(r"br-[a-z0-9-]{1,57}", re.ASCII)
_SCOPED = re.compile(r'subject_project_id:"([a-z0-9-]{1,60})"', re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The common options as they were given. `wait` is the longest wait in seconds; None is none."""

    output: Output = "table"
    api_host: str | None = None
    context: str | None = None
    context_file: Path | None = None
    project_id: str | None = None
    org_id: str | None = None
    branch: str | None = None
    yes: bool = False
    dry_run: bool = False
    wait: float | None = None


class Session:
    """One run of a command. `neon` is made at first use; `close` ends it."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.output: Output = options.output
        self.yes = options.yes
        self.dry_run = options.dry_run
        #: For the `wait` of the SDK's methods: how many seconds at most, False for not at all.
        self.wait: bool | float = False if options.wait is None else options.wait

    @cached_property
    def neon(self) -> Neon:
        """The client of the server that options, environment and contexts choose."""
        host, context = self.options.api_host, self.options.context
        if host is not None and context is not None:
            raise click.UsageError("Give --api-host or --context: a context has a server of its own.")
        from lamplighter import Neon  # noqa: PLC0415 - `--help` does without
        from lamplighter.cli.reach import check  # noqa: PLC0415 - the same

        transport = None
        if self.dry_run:
            from lamplighter.cli.dry_run import OnlyReading  # noqa: PLC0415 - for a dry run only

            transport = OnlyReading()
        neon = Neon(base_url=host, context=context, transport=transport)
        check(neon.server.base_url)
        return neon

    def close(self) -> None:
        """Close the client's connections, if there are any."""
        if "neon" in self.__dict__:
            self.neon.close()

    # What is meant when it is not said

    @cached_property
    def linked(self) -> Mapping[str, Any]:
        """What the `.neon` file of this directory, or of the nearest above it, says; empty when there is none."""
        return _read_context_file(self.options.context_file)

    @cached_property
    def _project(self) -> tuple[str, str]:
        """The project's id, and where it comes from when nobody gave it."""
        if self.options.project_id:
            return self.options.project_id, ""
        if found := os.environ.get("NEON_PROJECT_ID"):
            return found, "NEON_PROJECT_ID"
        if found := _text(self.linked, "projectId"):
            return found, f"the {CONTEXT_FILE} file"
        server = self.neon.server
        if server.project_id:
            return server.project_id, f"the context {server.name or server.source}"
        return self._only_project(), ""

    def project_id(self) -> str:
        """The project that is meant. Raises Failure when that is not clear."""
        return self._project[0]

    @property
    def project_source(self) -> str:
        """Where the project that is used comes from when it was not given; "" when it was, or none was used yet."""
        return self._project[1] if "_project" in self.__dict__ else ""

    def org_id(self) -> str | None:
        """The organization that is meant; None leaves it to the server."""
        return self.options.org_id or _text(self.linked, "orgId") or self.neon.server.org_id

    def branch(self, name_or_id: str | None = None) -> Branch:
        """The branch of exactly this id or name; of None, the one of `--branch`, of the `.neon` file, or the default.

        Raises Failure with status 3 when there is none.
        """
        if name_or_id == "":
            # A script's variable that is not set: the default branch is not what it means.
            raise Failure("a branch has a name: give that, or its id", hint="what was given is empty", status=USAGE)
        project = self.project_id()
        wanted = name_or_id or self.options.branch or self._linked_branch()
        if wanted is None:
            return self._default_branch()
        if _BRANCH_ID.fullmatch(wanted):
            from lamplighter.client.errors import NotFound  # noqa: PLC0415 - the client is in use

            with contextlib.suppress(NotFound):
                return self.neon.branches.get(project, wanted)
        for found in self.neon.branches.list(project, search=wanted, limit=1000):
            if wanted in (found.name, found.id):
                return found
        raise Failure(
            f"there is no branch {wanted!r} in project {project}",
            hint="`lamp branches list` shows those that are there",
            status=NOT_THERE,
        )

    def _default_branch(self) -> Branch:
        project = self.project_id()
        for found in self.neon.branches.list(project, limit=1000):
            if found.default:
                return found
        raise Failure(f"project {project} has no default branch", hint="name one", status=NOT_THERE)

    def _linked_branch(self) -> str | None:
        """The branch in the `.neon` file, which is one of the project there."""
        if _text(self.linked, "projectId") not in (None, self.project_id()):
            return None
        return _text(self.linked, "branch") or _text(self.linked, "branchId")

    def _only_project(self) -> str:
        from lamplighter.client.errors import BadRequest, NotFound  # noqa: PLC0415 - the client is in use

        try:
            found = self._two_projects(self.org_id())
        except NotFound as error:
            # A key that is scoped to a project cannot list projects, and the refusal names its own.
            scope = _SCOPED.search(str(error))
            if scope is None:
                raise
            return scope[1]
        except BadRequest as error:
            if "org_id is required" not in str(error):
                raise
            found = self._two_projects(self.only_organization())
        if len(found) == 1:
            return found[0]
        if not found:
            raise Failure("there is no project yet", hint="`lamp projects create` makes one", status=NOT_THERE)
        raise Failure(
            "there are several projects, and none was named",
            hint="give --project-id; `lamp projects list` shows them, and a .neon file or a context may name one",
            status=USAGE,
        )

    def _two_projects(self, org_id: str | None) -> list[str]:
        page = self.neon.projects.list(limit=2, org_id=org_id).page()
        return [project.id for project in page.items]

    def only_organization(self) -> str:
        """The only organization of the caller. Raises Failure when there are more, or none."""
        found = list(self.neon.users.organizations())
        if len(found) == 1:
            return found[0].id
        raise Failure(
            "it is not clear which organization is meant",
            hint="give --org-id; `lamp orgs list` shows them",
            status=USAGE,
        )

    # People

    def confirm(self, what: Sequence[str]) -> None:
        """Show what will go, and ask. Raises Failure when the answer is no, or when nobody can be asked."""
        if self.yes:
            return
        if not self.dry_run and not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise Failure(
                f"this cannot be undone, and nobody can be asked: {'; '.join(what)}",
                hint="give --yes to do it without a question, or --dry-run to see the requests",
                status=USAGE,
            )
        self.note(f"This cannot be undone, on {self.neon.server.base_url}:")
        for line in what:
            self.note(f"  {line}")
        if not self.dry_run and not click.confirm("Go on?", err=True):
            raise Failure("nothing was done", status=FAILED)

    def note(self, text: str) -> None:
        """Say something to people, on standard error. Each line is made harmless for a terminal."""
        click.echo("\n".join(map(clean, text.split("\n"))), err=True)

    @contextlib.contextmanager
    def waiting(self, text: str) -> Iterator[None]:
        """While the block runs a line on a terminal tells of it, and for how long already; nothing elsewhere."""
        from lamplighter.cli.spinner import Spinner  # noqa: PLC0415 - for commands that wait

        with Spinner(clean(text), sys.stderr):
            yield


def _text(linked: Mapping[str, Any], name: str) -> str | None:
    value = linked.get(name)
    return value if isinstance(value, str) and value else None


def _read_context_file(named: Path | None) -> Mapping[str, Any]:
    path = named or _nearest_context_file()
    if path is None:
        return {}
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise Failure(f"{path} cannot be read: {error}", hint="it should be JSON, as the neon CLI writes it") from error
    if not isinstance(content, dict):
        raise Failure(f"{path} holds no JSON object", hint="it should be as the neon CLI writes it")
    for name in _LINKED:
        if not isinstance(content.get(name), str | None):
            # Passed over, it would lead to another project or branch than the one that is meant.
            raise Failure(f"{name} in {path} is no text", hint="it should be as the neon CLI writes it")
    return content


def _nearest_context_file() -> Path | None:
    try:
        here = Path.cwd()
    except FileNotFoundError:
        # The directory was removed: there is none above it either.
        return None
    try:
        home = Path.home()
    except RuntimeError:
        # A container's user may have none.
        home = Path(here.anchor)
    return find_context_file(here, home=home)


def find_context_file(start: Path, *, home: Path) -> Path | None:
    """The nearest `.neon` file in `start` or above it, as the neon CLI looks for it: not in `home` nor in the root."""
    for place in (start, *start.parents):
        if place in (home, Path(place.anchor)):
            return None
        found = place / CONTEXT_FILE
        if found.is_file():
            return found
    return None


# The decorator


def api_command(
    *,
    project: bool = False,
    branch: bool = False,
    org: bool = False,
    changes: bool = False,
    destructive: bool = False,
    waits: bool = False,
    output: Output = "table",
) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Adds the common options to a function, and passes it a `Session` first.

    All have --output, --api-host, --context and --context-file. `project` adds --project-id and --org-id, `org` the
    latter alone, `branch` --branch too. What `changes` something has --dry-run, what is `destructive` --yes as well;
    what `waits` has --wait and --timeout. Both of these change something. `output` is what is printed by itself.
    """
    params = _server_options(output)
    if project or branch:
        params.append(
            _option(
                "--project-id",
                help="The project. [env: NEON_PROJECT_ID; default: of the .neon file, of the context, the only]",
            )
        )
    if project or branch or org:
        params.append(_option("--org-id", help="The organization."))
    if branch:
        params.append(
            _option("--branch", metavar="NAME|ID", help="The branch. [default: of the .neon file, the default]")
        )
    if waits:
        params += _wait_options()
    if destructive:
        params.append(_option("--yes", "-y", is_flag=True, help="Do not ask."))
    if changes or destructive or waits:
        params.append(
            _option("--dry-run", is_flag=True, help="Print the requests, and send none that changes anything.")
        )
    names = [param.name for param in params if param.name is not None]

    def decorate(function: Callable[..., R]) -> Callable[..., R]:
        @functools.wraps(function)
        def command(**given: Any) -> R:
            common = {name: given.pop(name) for name in names}
            return _run(lambda session: function(session, **given), common)

        # click shows the options that were added last first: the command's own come before ours.
        own = getattr(function, "__click_params__", [])
        command.__click_params__ = [*reversed(params), *own]  # type: ignore[attr-defined] # as click's decorators do
        return command

    return decorate


def _refuse_empty(common: Mapping[str, Any]) -> None:
    """An empty option is a script's variable that is not set: what is meant when none is given is not meant then."""
    for name in _NOT_EMPTY:
        if common.get(name) == "":
            option = f"--{name.replace('_', '-')}"
            raise click.UsageError(f"{option} is empty: give a value, or leave the option out.")


def _run(function: Callable[[Session], R], common: dict[str, Any]) -> R:
    _refuse_empty(common)
    wait, timeout = common.pop("wait", False), common.pop("timeout", WAIT_SECONDS)
    session = Session(Options(**common, wait=timeout if wait else None))
    from lamplighter.cli.planned import Planned  # noqa: PLC0415 - `--help` does without

    try:
        return function(session)
    except Planned as planned:
        from lamplighter.cli.dry_run import show  # noqa: PLC0415 - it is loaded already

        show(session, planned)
        click.get_current_context().exit(0)
    except Exception as error:
        failure = failure_of(error) or _of_value(error)
        if failure is None or failure is error:
            raise
        if failure.exit_code == NOT_THERE and session.project_source:
            failure.hint = (
                f"project {session.project_id()} comes from {session.project_source}; --project-id names another"
            )
        raise failure from error
    finally:
        session.close()


def _of_value(error: Exception) -> Failure | None:
    """The failure that a value stands for which the client will not send, such as `..` for the name of a role."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if type(error) is not ValueError or trace is None:
        return None
    raised_in = trace.tb_frame.f_globals.get("__name__", "")
    return Failure(str(error), status=USAGE) if raised_in.startswith("lamplighter.client.") else None


def _option(*names: str, **facts: Any) -> CommonOption:
    return CommonOption(names, **facts)


def _server_options(output: Output) -> list[CommonOption]:
    return [
        _option(
            "--output",
            "-o",
            type=click.Choice(OUTPUTS),
            default=output,
            show_default=True,
            help="How to print.",
        ),
        _option("--api-host", metavar="URL", help="The server. [env: NEON_API_HOST; default: of the context]"),
        _option("--context", metavar="NAME", help="A server that `lamp login` keeps. [env: LAMP_CONTEXT]"),
        _option(
            "--context-file",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="A .neon file. [default: the nearest here or above]",
        ),
    ]


def _wait_options() -> list[CommonOption]:
    return [
        _option(
            "--wait/--no-wait",
            default=True,
            show_default=True,
            help="Whether to return only when the operations have ended.",
        ),
        _option(
            "--timeout",
            type=click.FloatRange(min=0, min_open=True),
            default=WAIT_SECONDS,
            show_default=True,
            metavar="SECONDS",
            help="How long to wait.",
        ),
    ]
