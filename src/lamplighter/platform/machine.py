"""The parts below the control plane, opened on one data directory: storage, programs, computes, the catalog."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import psycopg
import structlog
from psycopg.conninfo import make_conninfo

from lamplighter.compute.binaries import Binaries, default_cache
from lamplighter.compute.cgroup import Cgroups, find_home, probe
from lamplighter.compute.config import SUPERUSER
from lamplighter.compute.errors import ComputeError
from lamplighter.compute.pooler import Poolers
from lamplighter.compute.pooler_errors import PoolerMissing
from lamplighter.compute.pooler_program import PoolerProgram, find_pooler
from lamplighter.compute.ports import ComputeSpec
from lamplighter.compute.supervisor import Supervisor
from lamplighter.compute.tls import Certificates, OperatorPair, hosts_of, names_here
from lamplighter.compute.user import current_or_system_user
from lamplighter.control.catalog.migrate import ensure_database, migrate
from lamplighter.control.catalog.pool import Catalog, open_pool
from lamplighter.platform.plane import TEMPLATE_PREFIX, LocalPlane
from lamplighter.platform.settings import Settings, run_dir_of
from lamplighter.storage.errors import StorageError
from lamplighter.storage.factory import open_volumes
from lamplighter.storage.ports import Owner, Volumes

log = structlog.get_logger(__name__)

CATALOG = "catalog"
CATALOG_DATABASE = "lamplighter"
CATALOG_MAJOR = 17
CATALOG_CU = 1.0
CATALOG_CONNECTIONS = 24
STOPS_AT_ONCE = 16

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Machine:
    """Storage and computes of one data directory. `crashes` gets the id and the reason of each unasked end."""

    volumes: Volumes
    supervisor: Supervisor
    plane: LocalPlane
    binaries: Binaries
    certificates: Certificates
    owner: tuple[int, int]
    run_dir: Path
    crashes: asyncio.Queue[tuple[str, str]]
    mended: tuple[str, ...]

    async def stop_computes(self) -> None:
        """Stop every postmaster but the catalog's, many at a time, and close their volumes."""
        gate = asyncio.Semaphore(STOPS_AT_ONCE)

        async def stop(compute_id: str, data_dir: Path) -> None:
            async with gate:
                try:
                    await self.plane.stop_compute(compute_id, volume_id=volume_of(data_dir))
                except (ComputeError, StorageError, OSError) as error:
                    log.warning("compute.stop_failed", compute_id=compute_id, error=str(error))

        running = [one.id for one in self.supervisor.list() if one.state == "running" and one.id != CATALOG]
        results = await asyncio.gather(
            *(stop(one, self.supervisor.spec(one).data_dir) for one in running), return_exceptions=True
        )
        for error in results:
            if isinstance(error, BaseException):
                log.error("compute.stop_failed", error=repr(error))


def volume_of(data_dir: Path) -> str:
    """The volume that a compute runs on: every driver gives a volume's data a directory inside the volume's own."""
    return data_dir.parent.name


def storage_owner(owner: tuple[int, int]) -> Owner | None:
    """Whom files are given to: nobody unless we are root."""
    return Owner(*owner) if os.geteuid() == 0 else None


async def open_machine(stack: AsyncExitStack, settings: Settings, report: Report) -> Machine:
    """Raises what storage and compute raise; each of their errors says what to do."""
    data_dir = settings.data_dir
    owner = await asyncio.to_thread(current_or_system_user)
    report("Opening the storage")
    volumes = await asyncio.to_thread(
        open_volumes,
        data_dir / "storage",
        driver=settings.storage_driver,
        owner=storage_owner(owner),
        reserve_bytes=settings.storage_reserve,
    )
    stack.push_async_callback(volumes.shutdown)
    mended = await volumes.recover()
    binaries = Binaries(settings.cache_dir or default_cache(), explicit=settings.postgres_bin, progress=report)
    crashes: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
    cgroups = Cgroups(find_home(await asyncio.to_thread(probe), "lamplighter"))
    await asyncio.to_thread(cgroups.prepare)
    certificates = Certificates(data_dir / "tls", owner, hosts=await hosts(settings), operator=operator_pair(settings))
    supervisor = Supervisor(
        run_dir_of(data_dir),
        builds=binaries.ensure,
        owner=owner,
        tls=await asyncio.to_thread(certificates.open),
        on_crash=lambda compute_id, reason: crashes.put_nowait((compute_id, reason)),
        log_dir=data_dir / "logs",
        copy_on_write=volumes.driver == "btrfs",
        cgroups=cgroups,
    )
    stack.push_async_callback(supervisor.close)
    await supervisor.adopt()
    poolers = await open_poolers(stack, settings, supervisor, owner)
    plane = LocalPlane(
        volumes=volumes,
        supervisor=supervisor,
        binaries=binaries,
        templates=data_dir / "templates",
        owner=owner,
        ports=settings.endpoint_ports,
        compute_ports=settings.compute_ports,
        poolers=poolers,
        listen=settings.listen,
        progress=report,
    )
    return Machine(
        volumes, supervisor, plane, binaries, certificates, owner, run_dir_of(data_dir), crashes, tuple(mended)
    )


async def open_poolers(
    stack: AsyncExitStack, settings: Settings, supervisor: Supervisor, owner: tuple[int, int]
) -> Poolers | None:
    """Poolers of computes, where this host has PgBouncer."""
    program = await asyncio.to_thread(usable_pooler)
    if program is None:
        return None
    poolers = Poolers(
        run_dir_of(settings.data_dir),
        program=program,
        owner=owner,
        connect=supervisor.connect,
        running=lambda compute_id: supervisor.status(compute_id).state == "running",
        log_dir=settings.data_dir / "logs",
    )
    stack.push_async_callback(poolers.close)
    await poolers.adopt()
    return poolers


def usable_pooler() -> PoolerProgram | None:
    """This host's PgBouncer; None, and the log says why, where none can be used. Blocks."""
    try:
        return find_pooler()
    except PoolerMissing as error:
        # A host may do without. One that has a PgBouncer, of no use, is not meant to.
        (log.info if error.path is None else log.warning)("pooler.none", why=error.why)
        return None


async def hosts(settings: Settings) -> tuple[str, ...]:
    """What the certificate must name."""
    here = await asyncio.to_thread(names_here)
    return hosts_of(address=settings.listen, domain=settings.domain, here=here)


def operator_pair(settings: Settings) -> OperatorPair | None:
    """The operator's own certificate, where one is given."""
    if settings.tls_certificate is None or settings.tls_key is None:
        return None
    return OperatorPair(settings.tls_certificate, settings.tls_key)


async def open_catalog(stack: AsyncExitStack, settings: Settings, machine: Machine, report: Report) -> Catalog:
    """The catalog, migrated: in a cluster of its own that is started here, or where `catalog_url` says.

    Raises Unavailable when no Postgres can be had, CatalogTooNew and its kin, psycopg.OperationalError.
    """
    if settings.catalog_url is None:
        await machine.plane.prepare(CATALOG_MAJOR)
        await machine.plane.create_volume(CATALOG, major=CATALOG_MAJOR)
        report("Starting the catalog")
        stack.push_async_callback(stop_catalog, machine)
        await start_catalog(machine)
        directory, port = machine.supervisor.socket(CATALOG)
        conninfo = make_conninfo(host=str(directory), port=port, user=SUPERUSER, dbname=CATALOG_DATABASE)
        await ensure_database(conninfo)
    else:
        conninfo = settings.catalog_url
    async with await psycopg.AsyncConnection.connect(conninfo, autocommit=True) as conn:
        for label in await migrate(conn):
            log.info("catalog.migrated", migration=label)
    catalog = await open_pool(conninfo, max_size=CATALOG_CONNECTIONS)
    stack.push_async_callback(catalog.close)
    return catalog


async def start_catalog(machine: Machine) -> None:
    """Start the catalog's postmaster, unless it runs."""
    volume = await machine.volumes.open(CATALOG)
    await machine.supervisor.start(
        ComputeSpec(id=CATALOG, major=CATALOG_MAJOR, data_dir=volume.data_dir, enter=volume.enter, cu=CATALOG_CU)
    )


async def stop_catalog(machine: Machine) -> None:
    await machine.supervisor.stop(CATALOG)
    try:
        await machine.volumes.close(CATALOG)
    except StorageError as error:
        # It is stopped cleanly; the next start opens what was left open.
        log.warning("catalog.close_failed", error=str(error))


def strays(machine: Machine, volumes: list[str]) -> tuple[list[str], list[str]]:
    """Computes that run, and volumes that are there, leaving out the platform's own."""
    running = [one.id for one in machine.supervisor.list() if one.state == "running" and one.id != CATALOG]
    return running, [one for one in volumes if one != CATALOG and not one.startswith(TEMPLATE_PREFIX)]
