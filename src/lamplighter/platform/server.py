"""A whole platform in one process: opened in the order in which its parts need each other, closed in reverse."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from functools import partial

import structlog
import uvicorn
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from lamplighter import __version__
from lamplighter.control import app
from lamplighter.control.catalog.pool import Catalog
from lamplighter.control.http.binding import BASE, Door, application
from lamplighter.control.http.limits import Limiter
from lamplighter.control.http.openapi import document
from lamplighter.control.kernel import Kernel, Place, utc_now
from lamplighter.control.operations.engine import Engine
from lamplighter.control.operations.recovery import release_leases
from lamplighter.control.reconcile import Reconciler
from lamplighter.control.seal import Sealer
from lamplighter.platform.first import FirstThings, begin, first_key
from lamplighter.platform.identity import SEAL_KEY, check_identity
from lamplighter.platform.machine import (
    CATALOG,
    Machine,
    Report,
    open_catalog,
    open_machine,
    start_catalog,
    strays,
    volume_of,
)
from lamplighter.platform.settings import Settings
from lamplighter.platform.state import clear_running, sole_platform, write_running
from lamplighter.storage.errors import StorageError

log = structlog.get_logger(__name__)

DRAIN_SECONDS = 20.0
MEASURE_SECONDS = 30.0
EXPIRE_SECONDS = 10.0
INSIST_SECONDS = 1.0
USAGE_SECONDS = 1.0
PRUNE_SECONDS = 6 * 3600.0
CONCURRENCY = 8
#: Standbys' volumes carry their endpoint's id, and hold nothing that their branch does not.
STANDBY_PREFIX = "ep-"


class PortBusy(Exception):
    """The API's port is taken; choose another with --port."""

    def __init__(self, host: str, port: int, why: str) -> None:
        self.host = host
        self.port = port
        super().__init__(f"cannot listen on {host}:{port} ({why}); choose another port with --port, or end what has it")


@dataclass(frozen=True, slots=True)
class Platform:
    """A platform that is up: `base_url` ends with `/api/v2`."""

    base_url: str
    driver: str
    first: FirstThings
    mended: tuple[str, ...]
    control: app.Control
    engine: Engine
    machine: Machine


class _Server(uvicorn.Server):
    """Signals are ours: a first Ctrl-C must also end the engine and the computes, in order."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def running_platform(settings: Settings, *, report: Report, new_key: bool = False) -> AsyncIterator[Platform]:
    """Bring a platform up, and down again at the end of the block. `report` gets a sentence for each long step.

    Raises AlreadyRunning, PortBusy, and the errors of storage and compute, each of which says what to do.
    """
    async with AsyncExitStack() as stack:
        settings.data_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
        stack.enter_context(sole_platform(settings.data_dir))
        listener = stack.enter_context(_listen(settings.host, settings.port))
        machine = await open_machine(stack, settings, report)
        catalog = await open_catalog(stack, settings, machine, report)
        _, volumes = strays(machine, await machine.volumes.list())
        await check_identity(catalog, settings.data_dir, has_branches=bool(volumes), now=utc_now())
        control, engine = await _open_control(settings, machine, catalog)
        mended = [*machine.mended, *await _reconcile(control, machine)]
        stack.push_async_callback(machine.stop_computes)
        await stack.enter_async_context(_background(control, engine, machine))
        first = await begin(control)
        if first.project_id is not None:
            report("Making the first project")
            await engine.wait_idle(first.project_id, timeout=120)
        base_url = await _serve(stack, settings, control, listener)
        write_running(settings.data_dir, base_url=base_url, run_dir=machine.run_dir)
        stack.callback(clear_running, settings.data_dir)
        first = replace(first, api_key=await first_key(control, anew=new_key))
        yield Platform(base_url, machine.volumes.driver, first, tuple(mended), control, engine, machine)
        report("Stopping")


@contextmanager
def _listen(host: str, port: int) -> Iterator[socket.socket]:
    try:
        listener = socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=512
        )
    except OSError as error:
        # asyncio and socket add words of their own to strerror.
        raise PortBusy(host, port, os.strerror(error.errno) if error.errno else str(error)) from error
    with listener:
        yield listener


async def _open_control(settings: Settings, machine: Machine, catalog: Catalog) -> tuple[app.Control, Engine]:
    engine: Engine | None = None

    def wake() -> None:
        if engine is not None:
            engine.wake()

    kernel = Kernel(
        catalog=catalog,
        plane=machine.plane,
        wake=wake,
        sealer=Sealer.from_file(settings.data_dir / SEAL_KEY),
        place=Place(infer_org=not settings.strict_org_id, missing_is_404=settings.missing_is_404),
    )
    control = app.build(kernel)
    # The lock of the data directory proves that an engine of this name is dead: its operations are taken up at once.
    owner = f"lamp:{settings.data_dir}"
    await release_leases(catalog, owner)
    engine = Engine(catalog, control.recipes, owner=owner, concurrency=CONCURRENCY)
    return control, engine


async def _reconcile(control: app.Control, machine: Machine) -> list[str]:
    """Bring the host in line with the catalog: end and remove what nobody asked for, start what ought to run.

    Returns a sentence for each thing that was put right.
    """
    reconciler = Reconciler(control.kernel)
    running, volumes = strays(machine, await machine.volumes.list())
    left = await reconciler.leftovers(running=running, volumes=volumes)
    mended = []
    for compute_id in left.computes:
        data_dir = machine.supervisor.spec(compute_id).data_dir
        await machine.plane.stop_compute(compute_id, volume_id=volume_of(data_dir))
        mended.append(f"stopped the compute {compute_id}, which nobody had asked for")
    still = {volume_of(machine.supervisor.spec(one).data_dir) for one in running if one not in left.computes}
    for volume_id in volumes:
        # Left open by a postmaster that died, or by a start that did not get as far as that.
        if volume_id not in still:
            try:
                await machine.volumes.close(volume_id)
            except StorageError as error:
                log.warning("volume.close_failed", volume_id=volume_id, error=str(error))
    for volume_id in left.volumes:
        if volume_id.startswith(STANDBY_PREFIX):
            await machine.plane.delete_volume(volume_id)
            mended.append(f"removed the volume {volume_id} of a standby that is no more")
        else:
            # It may be somebody's data, and a catalog that was restored from a backup does not know newer branches.
            mended.append(f"left the volume {volume_id} alone, which the catalog does not know; see `lamp doctor`")
    await reconciler.restart_active()
    return mended


async def _serve(stack: AsyncExitStack, settings: Settings, control: app.Control, listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    root_url = f"http://{shown}:{port}"
    door = Door(control.kernel, control.usage, Limiter() if settings.rate_limits == "neon" else None)
    described = document(server_url=root_url, version=__version__)

    async def openapi(_request: Request) -> JSONResponse:
        return JSONResponse(described)

    asgi = application(control.routes, door, Route("/openapi.json", openapi), Route(f"{BASE}/openapi.json", openapi))
    server = _Server(
        uvicorn.Config(
            asgi,
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            timeout_graceful_shutdown=int(DRAIN_SECONDS),
        )
    )
    task = asyncio.create_task(server.serve(sockets=[listener]), name="http")

    async def stop() -> None:
        server.should_exit = True
        await asyncio.gather(task, return_exceptions=True)

    stack.push_async_callback(stop)
    while not server.started:
        if task.done():
            await task
            raise RuntimeError("the HTTP server ended while it started")
        await asyncio.sleep(0.005)
    return root_url + BASE


async def _every(seconds: float, work: Callable[[], Awaitable[None]], name: str) -> None:
    """Do `work` again and again; a failure is logged and does not end it."""
    while True:
        await asyncio.sleep(seconds)
        try:
            await work()
        except Exception:
            log.exception("background.failed", work=name)


async def _watch_crashes(control: app.Control, machine: Machine) -> None:
    """A postmaster that ends by itself: the catalog's is started again at once, an endpoint's at its next start."""
    reconciler = Reconciler(control.kernel)
    async with asyncio.TaskGroup() as group:
        while True:
            compute_id, reason = await machine.crashes.get()
            # Side by side: to note that an endpoint crashed takes a catalog, which may have crashed as well.
            if compute_id == CATALOG:
                log.error("catalog.crashed", reason=reason)
                group.create_task(_insist(partial(start_catalog, machine), compute_id))
            else:
                group.create_task(_insist(partial(reconciler.note_crash, compute_id, reason), compute_id))


async def _insist(work: Callable[[], Awaitable[None]], compute_id: str) -> None:
    """Do it until it succeeds: nobody else would ever do it."""
    while True:
        try:
            await work()
        except Exception:
            log.exception("crash.unhandled", compute_id=compute_id, retry_in_seconds=INSIST_SECONDS)
        else:
            return
        await asyncio.sleep(INSIST_SECONDS)


@asynccontextmanager
async def _background(control: app.Control, engine: Engine, machine: Machine) -> AsyncIterator[None]:
    """The engine and the platform's regular work, for the time of the block. The engine ends what it is at first."""
    reconciler = Reconciler(control.kernel)
    tasks = [
        asyncio.create_task(engine.run(), name="engine"),
        asyncio.create_task(_watch_crashes(control, machine), name="crashes"),
        asyncio.create_task(_every(USAGE_SECONDS, control.usage.flush, "usage"), name="usage"),
        asyncio.create_task(_every(MEASURE_SECONDS, reconciler.measure, "measure"), name="measure"),
        asyncio.create_task(_every(EXPIRE_SECONDS, control.branches.delete_expired, "expire"), name="expire"),
        asyncio.create_task(_every(PRUNE_SECONDS, reconciler.prune, "prune"), name="prune"),
    ]
    try:
        yield
    finally:
        await engine.drain(DRAIN_SECONDS)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await control.usage.flush()
