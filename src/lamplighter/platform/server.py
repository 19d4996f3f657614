"""A whole platform in one process: opened in the order in which its parts need each other, closed in reverse."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import structlog
import uvicorn
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Route

from lamplighter import __version__
from lamplighter.compute.tls import names_here
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
from lamplighter.gateway.ports import Listening
from lamplighter.gateway.serverless import UVICORN
from lamplighter.gateway.serverless import app as serverless_app
from lamplighter.platform.bounded_http import BoundedHttp, Room, end_stalled
from lamplighter.platform.console_proxy import ConsoleProxy
from lamplighter.platform.errors import PortBusy, RedirectFailed
from lamplighter.platform.first import FirstThings, begin, first_key
from lamplighter.platform.gateway import LocalGateway
from lamplighter.platform.gateway_side import GatewaySide
from lamplighter.platform.identity import SEAL_KEY, check_identity
from lamplighter.platform.inspect import gateway_has
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
from lamplighter.platform.metrics import Numbers
from lamplighter.platform.own_routes import StrangersWakes, own_routes, target_of
from lamplighter.platform.redirect import Redirects
from lamplighter.platform.settings import Settings
from lamplighter.platform.state import clear_running, sole_platform, write_running
from lamplighter.storage.errors import StorageError

log = structlog.get_logger(__name__)

DRAIN_SECONDS = 20.0
MEASURE_SECONDS = 30.0
EXPIRE_SECONDS = 10.0
INSIST_SECONDS = 1.0
USAGE_SECONDS = 1.0
LOOK_SECONDS = 1.0
RESYNC_SECONDS = 15.0
WRITE_USAGE_SECONDS = 10.0
CERTIFICATE_SECONDS = 10.0
PRUNE_SECONDS = 6 * 3600.0
CONCURRENCY = 8
#: Of computes that clients reach; others carry their branch's id. Standbys' volumes carry their endpoint's id, too, and
#: hold nothing that their branch does not.
ENDPOINT_PREFIX = "ep-"


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
    console: ConsoleProxy | None


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
        console_listener = _console_listener(stack, settings)
        _check_domain_port(settings)
        machine = await open_machine(stack, settings, report)
        console = ConsoleProxy(console_listener, machine.certificates) if console_listener else None
        if console:
            await console.renew()
        catalog = await open_catalog(stack, settings, machine, report)
        _, volumes = strays(machine, await machine.volumes.list())
        await check_identity(catalog, settings.data_dir, has_branches=bool(volumes), now=utc_now())
        numbers = Numbers()
        control, engine, gateway = await _open_control(settings, machine, catalog, numbers)
        mended = [*machine.mended, *await _reconcile(control, machine)]
        # After the computes: without the table the kernel forgets the connections that it has led.
        stack.push_async_callback(clear_redirects, settings.data_dir)
        # It passes on what the computes say when they are stopped.
        stack.push_async_callback(gateway.close)
        stack.push_async_callback(machine.stop_computes)
        await control.doors.give_pooler_ports()
        await gateway.start(await control.doors.all())
        # Before the computes: whoever comes from now on is not to wait for one.
        stack.callback(gateway.retire)
        await stack.enter_async_context(
            _background(
                control,
                engine,
                machine,
                gateway=gateway,
                numbers=numbers,
                listening=_listening(settings),
                console=console,
            )
        )
        first = await begin(control)
        if first.project_id is not None:
            report("Making the first project")
            await engine.wait_idle(first.project_id, timeout=120)
        serverless = serverless_app(partial(target_of, gateway, wakes=StrangersWakes()))
        stack.push_async_callback(serverless.close)
        routes = own_routes(control, numbers, serverless)
        if console:
            # After the API, which ends what it is at first.
            stack.push_async_callback(console.close)
        base_url = await _serve(stack, settings, control, listener, routes)
        if console:
            console.start(*_reachable(listener))
        write_running(settings.data_dir, base_url=base_url, run_dir=machine.run_dir)
        stack.callback(clear_running, settings.data_dir)
        first = replace(first, api_key=await first_key(control, anew=new_key))
        yield Platform(base_url, machine.volumes.driver, first, tuple(mended), control, engine, machine, console)
        report("Stopping")


@contextmanager
def _listen(host: str, port: int, *, option: str = "--port") -> Iterator[socket.socket]:
    try:
        listener = socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=512
        )
    except OSError as error:
        # asyncio and socket add words of their own to strerror.
        why = os.strerror(error.errno) if error.errno else str(error)
        raise PortBusy(host, port, why, option=option) from error
    with listener:
        end_stalled(listener)
        yield listener


def _check_domain_port(settings: Settings) -> None:
    """Clients would log in to whoever has it, and the gateway would only try again and again. Raises PortBusy."""
    address, port = settings.listen, settings.domain_port
    if settings.domain is None or gateway_has(settings.data_dir, port):
        return
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            raise PortBusy(address, port, error.strerror or str(error), option="--domain-port") from error


def _console_listener(stack: AsyncExitStack, settings: Settings) -> socket.socket | None:
    """On loopback, whatever the API listens on: TLS ends there, and the way there is by plain HTTP."""
    if settings.console_proxy is None:
        return None
    return stack.enter_context(_listen("127.0.0.1", settings.console_proxy, option="--console-proxy"))


def _reachable(listener: socket.socket) -> tuple[str, int]:
    """Where a process of this host reaches what listens there."""
    host, port = listener.getsockname()[:2]
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port  # noqa: S104 - compared, not listened on


async def _open_control(
    settings: Settings, machine: Machine, catalog: Catalog, numbers: Numbers
) -> tuple[app.Control, Engine, LocalGateway]:
    engine: Engine | None = None

    def wake() -> None:
        if engine is not None:
            engine.wake()

    side = GatewaySide(plane=machine.plane, supervisor=machine.supervisor, numbers=numbers)
    gateway = LocalGateway(
        run_dir=machine.run_dir,
        log_file=settings.data_dir / "logs" / "gateway.log",
        listening=_listening(settings),
        below=side,
        redirects=await _redirects(settings),
        endpoint_connections=settings.endpoint_connections,
    )
    kernel = Kernel(
        catalog=catalog,
        plane=machine.plane,
        gateway=gateway,
        wake=wake,
        sealer=Sealer.from_file(settings.data_dir / SEAL_KEY),
        place=Place(
            host=host_to_show(settings.listen),
            infer_org=not settings.strict_org_id,
            missing_is_404=settings.missing_is_404,
            domain=settings.domain,
            domain_port=settings.domain_port,
            active_limit=settings.active_endpoints,
            suspend_after=settings.suspend_after,
        ),
    )
    control = side.control = app.build(kernel)
    # The lock of the data directory proves that an engine of this name is dead: its operations are taken up at once.
    owner = f"lamp:{settings.data_dir}"
    await release_leases(catalog, owner)
    engine = Engine(catalog, control.recipes, owner=owner, concurrency=CONCURRENCY)
    return control, engine, gateway


async def _redirects(settings: Settings) -> Redirects | None:
    """For `--redirect`, where the host can. Else what an earlier platform has left leads to computes no more."""
    redirects = Redirects(settings.data_dir, [settings.listen])
    why_not = await redirects.probe() if settings.redirect else "it was not asked for"
    if why_not is None:
        return redirects
    if settings.redirect:
        log.warning("redirect.unavailable", why=why_not, instead="connections go by the relay")
    await redirects.withdraw()
    return None


async def clear_redirects(data_dir: Path) -> None:
    """Remove what the kernel was told, if anything."""
    try:
        await Redirects(data_dir).clear()
    except RedirectFailed as error:
        log.warning("redirect.left", error=str(error), instead="`lamp doctor` tells how to remove it")


def host_to_show(address: str) -> str:
    """What clients are to be told of an address that endpoints listen on: of "any" the host's name, or an address."""
    if address not in ("0.0.0.0", "::"):  # noqa: S104 - compared, not listened on
        return address
    name = socket.getfqdn()
    if "." in name and not name.startswith("localhost"):
        return name
    return next(iter(names_here()[1:]), name)


def _listening(settings: Settings) -> Listening:
    tls = settings.data_dir / "tls"
    return Listening(
        address=settings.listen,
        certificate=str(tls / "server.crt"),
        key=str(tls / "server.key"),
        domain=settings.domain,
        domain_port=settings.domain_port if settings.domain else None,
    )


async def _reconcile(control: app.Control, machine: Machine) -> list[str]:
    """Bring the host in line with the catalog: end and remove what nobody asked for, start what ought to run.

    Returns a sentence for each thing that was put right.
    """
    reconciler = Reconciler(control.kernel, control.doors)
    await _clear_public_ports(machine)
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
        if volume_id.startswith(ENDPOINT_PREFIX):
            await machine.plane.delete_volume(volume_id)
            mended.append(f"removed the volume {volume_id} of a standby that is no more")
        else:
            # It may be somebody's data, and a catalog that was restored from a backup does not know newer branches.
            mended.append(f"left the volume {volume_id} alone, which the catalog does not know; see `lamp doctor`")
    await reconciler.restart_active()
    return mended


async def _clear_public_ports(machine: Machine) -> None:
    """Stop the computes of a release in which they had the public ports themselves; they are started again."""
    running, _ = strays(machine, [])
    for spec in map(machine.supervisor.spec, running):
        if spec.port is not None and not machine.plane.is_private(spec.port):
            await machine.plane.stop_compute(spec.id, volume_id=volume_of(spec.data_dir))


async def _serve(
    stack: AsyncExitStack, settings: Settings, control: app.Control, listener: socket.socket, own: list[BaseRoute]
) -> str:
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    root_url = f"http://{shown}:{port}"
    door = Door(control.kernel, control.usage, Limiter() if settings.rate_limits == "neon" else None)
    described = document(server_url=root_url, version=__version__)

    async def openapi(_request: Request) -> JSONResponse:
        return JSONResponse(described)

    documents = [Route("/openapi.json", openapi), Route(f"{BASE}/openapi.json", openapi)]
    asgi = application(control.routes, door, *documents, *own)
    server = _Server(
        uvicorn.Config(
            asgi,
            log_config=None,
            access_log=False,
            lifespan="off",
            **{**UVICORN, "http": partial(BoundedHttp, Room())},
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


async def _every(seconds: float, work: Callable[[], Awaitable[object]], name: str) -> None:
    """Do `work` again and again; a failure is logged and does not end it."""
    while True:
        await asyncio.sleep(seconds)
        try:
            await work()
        except Exception:
            log.exception("background.failed", work=name)


async def _watch_crashes(control: app.Control, machine: Machine, numbers: Numbers) -> None:
    """A postmaster that ends by itself: the catalog's is started again at once, an endpoint's at its next start."""
    reconciler = Reconciler(control.kernel, control.doors)
    async with asyncio.TaskGroup() as group:
        while True:
            compute_id, reason = await machine.crashes.get()
            # Side by side: to note that an endpoint crashed takes a catalog, which may have crashed as well.
            if compute_id == CATALOG:
                log.error("catalog.crashed", reason=reason)
                group.create_task(_insist(partial(start_catalog, machine), compute_id))
            else:
                if compute_id.startswith(ENDPOINT_PREFIX):
                    numbers.suspended(compute_id, "crash")
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
async def _background(
    control: app.Control,
    engine: Engine,
    machine: Machine,
    *,
    gateway: LocalGateway,
    numbers: Numbers,
    listening: Listening,
    console: ConsoleProxy | None,
) -> AsyncIterator[None]:
    """The engine and the platform's regular work, for the time of the block. The engine ends what it is at first."""
    reconciler = Reconciler(control.kernel, control.doors)

    async def look() -> None:
        found = await control.idle.look()
        for endpoint_id, reason in found.slept:
            numbers.suspended(endpoint_id, reason)
        for endpoint_id, seconds in found.charged.items():
            numbers.active(endpoint_id, seconds)

    async def renew() -> None:
        if await asyncio.to_thread(machine.certificates.refresh):
            gateway.listen_anew(listening)
            await machine.supervisor.reread_certificates()
        if console:
            await console.renew()

    tasks = [
        asyncio.create_task(engine.run(), name="engine"),
        asyncio.create_task(_watch_crashes(control, machine, numbers), name="crashes"),
        asyncio.create_task(_every(USAGE_SECONDS, control.usage.flush, "usage"), name="usage"),
        asyncio.create_task(_every(MEASURE_SECONDS, reconciler.measure, "measure"), name="measure"),
        asyncio.create_task(_every(EXPIRE_SECONDS, control.branches.delete_expired, "expire"), name="expire"),
        asyncio.create_task(_every(LOOK_SECONDS, look, "idle"), name="idle"),
        asyncio.create_task(_every(RESYNC_SECONDS, control.doors.resync, "doors"), name="doors"),
        asyncio.create_task(_every(LOOK_SECONDS, gateway.count_redirected, "redirects"), name="redirects"),
        asyncio.create_task(
            _every(WRITE_USAGE_SECONDS, control.idle.write_usage, "compute usage"), name="compute usage"
        ),
        asyncio.create_task(_every(CERTIFICATE_SECONDS, renew, "certificates"), name="certificates"),
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
        await control.idle.write_usage()
