"""Gateways of tests: a small platform at the other end of the link, and real computes behind it."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from lamplighter.compute.binaries import Binaries
from lamplighter.compute.ports import Changes, ComputeSpec, DatabaseSpec, RoleSpec
from lamplighter.compute.supervisor import Supervisor
from lamplighter.compute.template import make_template
from lamplighter.compute.tls import TlsFiles, ensure_tls
from lamplighter.compute.user import SystemUser
from support.front import DATABASE, DOMAIN, PASSWORD, ROLE, Endpoint, Platform, copy_data, free_port


@pytest.fixture(scope="session")
def tls(session_place: Path, owner: SystemUser) -> TlsFiles:
    return ensure_tls(session_place / "front-tls", owner, [DOMAIN, f"*.{DOMAIN}"])


@pytest.fixture(scope="session")
def prepared(session_place: Path, binaries: Binaries, owner: SystemUser) -> Path:
    """A data directory with a role and a database of users, to be copied."""
    seed = make_template(binaries.ensure(17), session_place / "seeds", owner=owner)
    data_dir = session_place / "prepared"
    copy_data(seed, data_dir, owner)

    async def fill() -> None:
        supervisor = Supervisor(session_place / "p", builds=binaries.ensure, owner=owner)
        roles, databases = (RoleSpec(ROLE, PASSWORD),), (DatabaseSpec(DATABASE, ROLE, was="neondb"),)
        try:
            await supervisor.start(ComputeSpec(id="ep-prepared", major=17, data_dir=data_dir))
            await supervisor.apply("ep-prepared", Changes(roles=roles, databases=databases))
        finally:
            await supervisor.stop("ep-prepared")
            await supervisor.close()

    # In a thread of its own: the event loop of an async fixture stays in this one as long as the fixture lives, and
    # the session's other tests could not run theirs.
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, fill()).result()
    return data_dir


MakePlatform = Callable[..., contextlib.AbstractAsyncContextManager[Platform]]


@pytest.fixture(scope="session")
def make_platform(
    session_place: Path, prepared: Path, binaries: Binaries, owner: SystemUser, tls: TlsFiles
) -> MakePlatform:
    """`make_platform(*options of the gateway, **values of the platform)`; `place` is a directory of its own."""
    spare: list[Path] = []

    @contextlib.asynccontextmanager
    async def make(*options: str, place: Path | None = None, **values: Any) -> AsyncIterator[Platform]:
        if place is None:
            place = Path(tempfile.mkdtemp(prefix="f-", dir=session_place))
            place.chmod(0o755)
        values = {"tls": tls, "spare": spare, "options": options} | values
        made = Platform(place, binaries, prepared, owner, **values)
        try:
            await made.open()
            yield made
        finally:
            await made.close()

    return make


@pytest.fixture(scope="module")
async def shared(make_platform: MakePlatform) -> AsyncIterator[Platform]:
    """One with a domain, for all tests of a module that leave its gateway alone."""
    async with make_platform(domain_port=free_port()) as made:
        yield made


@pytest.fixture
async def platform(shared: Platform) -> AsyncIterator[Platform]:
    """The shared one, without endpoints."""
    yield shared
    await shared.clear()


@pytest.fixture
async def own(make_platform: MakePlatform) -> AsyncIterator[Platform]:
    """One for tests that end its gateway or its relay, take all of its room, or look at its counts and its log."""
    async with make_platform(domain_port=free_port()) as made:
        yield made


@pytest.fixture
async def endpoint(platform: Platform) -> Endpoint:
    """It sleeps."""
    return await platform.add("ep-still-lake-12345678")


@pytest.fixture
async def own_endpoint(own: Platform) -> Endpoint:
    return await own.add("ep-own-lake-12345678")
