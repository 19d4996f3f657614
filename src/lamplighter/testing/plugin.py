"""Fixtures for tests on a real database: a fresh branch for a test, a module or a session, removed at its end.

pytest loads this in every run on a machine that has Lamplighter, so it imports pytest and the standard library only;
the client is imported by the first test that asks for a fixture.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from lamplighter.testing import naming

if TYPE_CHECKING:
    from lamplighter import Neon
    from lamplighter.testing.branches import BranchMaker, NeonBranch
    from lamplighter.testing.dsn import Dsn


class _Option(NamedTuple):
    """`--neon-NAME` on the command line, `neon_NAME` in the configuration; the former wins."""

    name: str
    metavar: str
    help: str


_OPTIONS = (
    _Option(
        "project", "ID", "The project that branches are made in (else NEON_PROJECT_ID, the context's, or the only one)"
    ),
    _Option("parent", "BRANCH", "Id or name of the branch that branches are made of (else the default branch)"),
    _Option("branch-ttl", "TIME", "How long a branch lives if the run is killed: 30m, 2h (default 1h)"),
    _Option("branch-database", "NAME", "The database that connection strings name (needed when there are several)"),
    _Option("branch-role", "NAME", "The role that connection strings name (needed when there are several)"),
    _Option("context", "NAME", "The context (lamp context) whose server is used, instead of the environment's"),
    _Option("base-url", "URL", "The server, if a key for it is in the environment or in a context"),
)

_SCHEMA_ONLY = "Make branches with the schema of their parent, and without its data"

_MAKERS = pytest.StashKey[list["BranchMaker"]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("neon", "branches for tests (lamplighter.testing)")
    for option in _OPTIONS:
        group.addoption(f"--neon-{option.name}", metavar=option.metavar, default=None, help=option.help)
        parser.addini(f"neon_{option.name.replace('-', '_')}", option.help, default=None)
    group.addoption("--neon-schema-only", action="store_true", default=None, help=_SCHEMA_ONLY)
    parser.addini("neon_schema_only", _SCHEMA_ONLY, type="bool", default=False)


def pytest_configure(config: pytest.Config) -> None:
    _ttl(config)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    for maker in item.config.stash.get(_MAKERS, ()):
        maker.keep_alive()


def _option(config: pytest.Config, name: str) -> str | None:
    given = config.getoption(f"neon_{name}")
    return given or config.getini(f"neon_{name}") or None


def _ttl(config: pytest.Config) -> timedelta:
    text = _option(config, "branch_ttl")
    try:
        return naming.DEFAULT_TTL if text is None else naming.parse_ttl(text)
    except ValueError as error:
        raise pytest.UsageError(f"--neon-branch-ttl or neon_branch_ttl: {error}") from None


@contextlib.contextmanager
def _plainly() -> Iterator[None]:
    """What the client objects to, as a sentence and a hint: where in the plugin it was raised helps nobody."""
    from lamplighter.client.errors import NeonError  # noqa: PLC0415 - see the module's docstring

    try:
        yield
    except NeonError as error:
        hint = f"\nhint: {error.hint}" if error.hint else ""
        message = f"{error}{hint}"
    else:
        return
    pytest.fail(message, pytrace=False)


@pytest.fixture(scope="session")
def neon(pytestconfig: pytest.Config) -> Iterator[Neon]:
    """A `lamplighter.Neon` for the server that is configured: by option, by environment (NEON_API_KEY), by context.

    Override it in a conftest.py to configure the client in another way; the branch fixtures then use yours.
    """
    from lamplighter import Neon  # noqa: PLC0415 - see the module's docstring

    with _plainly():
        client = Neon(context=_option(pytestconfig, "context"), base_url=_option(pytestconfig, "base_url"))
    with client:
        yield client


@pytest.fixture(scope="session")
def neon_project_id(pytestconfig: pytest.Config, neon: Neon) -> str:
    """The project that branches are made in. Override it to make them in another one."""
    from lamplighter.testing.branches import choose_project  # noqa: PLC0415 - see the module's docstring

    named = _option(pytestconfig, "project") or os.environ.get("NEON_PROJECT_ID", "").strip()
    if named:
        return named
    with _plainly():
        return choose_project(neon)


@pytest.fixture(scope="session")
def _neon_branches(
    pytestconfig: pytest.Config, neon: Neon, neon_project_id: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[BranchMaker]:
    from lamplighter.testing.branches import BranchMaker, BranchOptions  # noqa: PLC0415 - see the module's docstring
    from lamplighter.testing.turns import Turns  # noqa: PLC0415 - see the module's docstring

    options = BranchOptions(
        parent=_option(pytestconfig, "parent"),
        ttl=_ttl(pytestconfig),
        schema_only=pytestconfig.getoption("neon_schema_only") or pytestconfig.getini("neon_schema_only"),
        database=_option(pytestconfig, "branch_database"),
        role=_option(pytestconfig, "branch_role"),
    )
    worker = _worker(pytestconfig)
    if worker is None:
        maker = BranchMaker(neon, project_id=neon_project_id, worker="main", options=options)
        maker.sweep()
    else:
        # A worker's directory lies in that of the run.
        run = tmp_path_factory.getbasetemp().parent
        turns = Turns(run / f"lamplighter-turn-{neon_project_id}")
        maker = BranchMaker(neon, project_id=neon_project_id, worker=worker, options=options, turns=turns)
        if _first(run / f"lamplighter-swept-{neon_project_id}"):
            maker.sweep()
    makers = pytestconfig.stash.setdefault(_MAKERS, [])
    makers.append(maker)
    yield maker
    makers.remove(maker)


def _worker(config: pytest.Config) -> str | None:
    """The id of this process among pytest-xdist's workers; None without them."""
    workerinput: dict[str, str] | None = getattr(config, "workerinput", None)
    return None if workerinput is None else workerinput["workerid"]


def _first(marker: Path) -> bool:
    """Whether no other process was here before."""
    try:
        marker.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def _branch(maker: BranchMaker, label: str) -> Iterator[NeonBranch]:
    with _plainly():
        branch = maker.make(label)
    try:
        yield branch
    finally:
        maker.remove(branch.id)


@pytest.fixture
def neon_branch(_neon_branches: BranchMaker, request: pytest.FixtureRequest) -> Iterator[NeonBranch]:
    """A fresh branch for one test, with an endpoint that takes connections."""
    yield from _branch(_neon_branches, request.node.name)


@pytest.fixture(scope="module")
def neon_module_branch(_neon_branches: BranchMaker, request: pytest.FixtureRequest) -> Iterator[NeonBranch]:
    """A branch that the tests of a module share."""
    yield from _branch(_neon_branches, request.node.path.stem)


@pytest.fixture(scope="session")
def neon_session_branch(_neon_branches: BranchMaker) -> Iterator[NeonBranch]:
    """A branch that all tests share; with pytest-xdist, those of one worker."""
    yield from _branch(_neon_branches, "session")


@pytest.fixture
def neon_dsn(neon_branch: NeonBranch) -> Dsn:
    """The connection string of a fresh branch for one test."""
    return neon_branch.connection_string


@pytest.fixture(scope="module")
def neon_module_dsn(neon_module_branch: NeonBranch) -> Dsn:
    """The connection string of the module's branch."""
    return neon_module_branch.connection_string


@pytest.fixture(scope="session")
def neon_session_dsn(neon_session_branch: NeonBranch) -> Dsn:
    """The connection string of the session's branch."""
    return neon_session_branch.connection_string
