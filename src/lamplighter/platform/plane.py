"""The machine below the control plane: the volumes of `storage` and the computes of `compute` as one port."""

from __future__ import annotations

import asyncio
import hashlib
import random
import socket
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from weakref import WeakValueDictionary

import psycopg

from lamplighter import faults
from lamplighter.api.errors import Unavailable, Unprocessable
from lamplighter.compute.backup import Backup
from lamplighter.compute.binaries import Binaries
from lamplighter.compute.errors import BinariesError, ComputeError, PortTaken, SystemUserError, TemplateFailed
from lamplighter.compute.pooler import Poolers
from lamplighter.compute.pooler_errors import PoolerPortTaken
from lamplighter.compute.ports import Changes, ComputeSpec, DatabaseSpec, RoleSpec, Standby
from lamplighter.compute.supervisor import Supervisor
from lamplighter.compute.template import ensure_template
from lamplighter.control.ports import ComputeOrder, SqlChanges
from lamplighter.gateway.ports import Backend
from lamplighter.platform import census
from lamplighter.storage.errors import StorageFull
from lamplighter.storage.ports import BackupEnd, Volumes

TEMPLATE_PREFIX = "template-"
#: Where computes listen, for the gateway of this host alone.
LISTEN = "127.0.0.1"
PORT_TRIES = 5


def slot_of(compute_id: str) -> str:
    """The replication slot of a standby: lower case letters, digits and underscores are all that a slot may have."""
    return "lamp_" + compute_id.replace("-", "_")


class RunningSource:
    """A compute's backup as storage wants it; the two packages do not know each other's types."""

    def __init__(self, backup: Backup) -> None:
        self._backup = backup
        self.visible_data_dir = backup.visible_data_dir
        self.checkpoint = backup.checkpoint
        self.start = backup.start
        self.abort = backup.abort

    async def stop(self) -> BackupEnd:
        end = await self._backup.stop()
        return BackupEnd(end.label_file, end.tablespace_map, end.first_wal_file, end.last_wal_file)


class LocalPlane:
    """Implements `control.ports.DataPlane` on this host."""

    def __init__(
        self,
        *,
        volumes: Volumes,
        supervisor: Supervisor,
        binaries: Binaries,
        templates: Path,
        owner: tuple[int, int],
        ports: tuple[int, int],
        compute_ports: tuple[int, int],
        poolers: Poolers | None,
        listen: str,
        progress: Callable[[str], None],
    ) -> None:
        self._volumes = volumes
        self._supervisor = supervisor
        self._binaries = binaries
        self._templates = templates
        self._owner = owner
        self._ports = ports
        self._compute_ports = compute_ports
        self._poolers = poolers
        self._listen = listen
        #: Where the search for private ports goes on; begun anywhere, for others on this host search too.
        self._last_private = random.randint(*compute_ports)  # noqa: S311 - no secret
        #: Ports that were chosen a moment ago, whose owners do not listen yet.
        self._chosen: set[int] = set()
        self._pooler_starts: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._progress = progress
        self._prepared: dict[int, str] = {}
        self._preparing = asyncio.Lock()

    async def prepare(self, major: int) -> None:
        await self._template(major)

    async def _template(self, major: int) -> str:
        """The volume that new clusters of this major are cloned from; made once for each build."""
        async with self._preparing:
            if major in self._prepared:
                return self._prepared[major]
            try:
                build = await asyncio.to_thread(self._binaries.ensure, major)
                seed = await ensure_template(build, self._templates, owner=self._owner, progress=self._progress)
            except (BinariesError, TemplateFailed, SystemUserError) as error:
                raise Unavailable(str(error)) from error
            volume_id = f"{TEMPLATE_PREFIX}{major}-{hashlib.sha256(seed.parent.name.encode()).hexdigest()[:12]}"
            await self._volumes.import_seed(volume_id, seed)
            self._prepared[major] = volume_id
            return volume_id

    async def require_space(self) -> None:
        try:
            await self._volumes.require_space()
        except StorageFull as error:
            raise Unprocessable(str(error), code="STORAGE_RESERVE_REACHED") from error

    async def create_volume(self, volume_id: str, *, major: int) -> None:
        await self._volumes.clone(await self._template(major), volume_id, backup=None)

    async def clone_volume(self, source_id: str, target_id: str, *, compute_id: str | None) -> None:
        if compute_id is not None:
            # Of a postmaster that has just crashed, children may still write: what is copied as asleep must be.
            await self._supervisor.settle(compute_id)
            if self.is_running(compute_id):
                backup = await self._supervisor.backup(compute_id)
                await self._volumes.clone(source_id, target_id, backup=RunningSource(backup))
                return
        await self._volumes.clone(source_id, target_id, backup=None)

    async def delete_volume(self, volume_id: str) -> None:
        await self._volumes.close(volume_id)
        await self._volumes.delete(volume_id)

    async def start_compute(self, order: ComputeOrder) -> None:
        volume = await self._volumes.open(order.volume_id)
        if order.reachable:
            faults.point("endpoint.start.after_open")
        standby = None
        if order.follow is not None:
            standby = Standby(primary_id=order.follow.primary_id, slot=slot_of(order.id))
        spec = ComputeSpec(
            id=order.id,
            major=order.major,
            data_dir=volume.data_dir,
            enter=volume.enter,
            listen=LISTEN,
            cu=order.cu,
            settings=dict(order.settings),
            standby=standby,
            logical_replication=order.logical_replication,
        )
        await self._start(spec, reachable=order.reachable)
        for follower in order.followers:
            await self._supervisor.create_slot(order.id, slot_of(follower))

    async def _start(self, spec: ComputeSpec, *, reachable: bool) -> None:
        """With a port of its own for the gateway, another one if somebody was quicker to take it."""
        if not reachable:
            await self._supervisor.start(spec)
            return
        tried: set[int] = set()
        while True:
            now = self._supervisor.status(spec.id)
            running = now.port if now.state == "running" else None
            port = running or self._private_port(tried)
            try:
                await self._supervisor.start(replace(spec, port=port))
            except PortTaken:
                tried.add(port)
                if len(tried) == PORT_TRIES:
                    raise
            else:
                return
            finally:
                self._chosen.discard(port)

    def is_private(self, port: int) -> bool:
        """Whether a compute may have this port: it is not one of those that clients are told."""
        return not self._ports[0] <= port <= self._ports[1]

    def _private_port(self, tried: set[int]) -> int:
        """A port for a postmaster or pooler, which the gateway alone is told.

        The next one, and not the first that is free: a route not yet withdrawn must not lead to another compute.
        """
        used = {one.port for one in self._supervisor.list()} | self._chosen | tried
        if self._poolers is not None:
            used |= {one.port for one in self._poolers.list()}
        for port in in_turn(self._compute_ports, self._last_private):
            if port not in used and can_listen(LISTEN, port):
                self._chosen.add(port)
                self._last_private = port
                return port
        raise Unprocessable(
            f"no port from {self._compute_ports[0]} to {self._compute_ports[1]} is free for another compute; suspend"
            " some, or give `lamp up` a wider range (--compute-ports)",
            code="ACTIVE_ENDPOINTS_LIMIT_EXCEEDED",
        )

    async def stop_compute(self, compute_id: str, *, volume_id: str) -> None:
        if self._poolers is not None:
            await self._poolers.stop(compute_id)
        await self._supervisor.stop(compute_id)
        await self._supervisor.settle(compute_id)
        await self._volumes.close(volume_id)

    async def settle_crashed(self, compute_id: str) -> None:
        if self._poolers is not None:
            await self._poolers.stop_beside_nothing(compute_id)

    def is_running(self, compute_id: str) -> bool:
        return self._supervisor.status(compute_id).state == "running"

    async def forget_compute(self, compute_id: str) -> None:
        if self._poolers is not None:
            await self._poolers.forget(compute_id)
        await self._supervisor.forget(compute_id)

    async def apply(self, compute_id: str, changes: SqlChanges) -> None:
        await self._supervisor.apply(
            compute_id,
            Changes(
                roles=tuple(
                    RoleSpec(role.name, role.password, new=role.new, replication=role.replication)
                    for role in changes.roles
                ),
                databases=tuple(DatabaseSpec(one.name, one.owner, one.was, new=one.new) for one in changes.databases),
                drop_databases=tuple(changes.drop_databases),
                drop_roles=tuple(changes.drop_roles),
            ),
        )
        if self._poolers is not None:
            await self._poolers.reload(compute_id)

    async def copy_schema(self, source_compute: str, target_compute: str) -> None:
        await self._supervisor.copy_schema(source_compute, target_compute)

    async def keep_for_follower(self, primary_id: str, follower_id: str) -> None:
        await self._supervisor.create_slot(primary_id, slot_of(follower_id))

    async def drop_follower(self, primary_id: str, follower_id: str) -> None:
        if self.is_running(primary_id):
            await self._supervisor.drop_slot(primary_id, slot_of(follower_id))

    async def logical_size(self, compute_id: str) -> int | None:
        try:
            sizes = await self._supervisor.database_sizes(compute_id)
        except (ComputeError, psycopg.Error):
            return None
        return sum(sizes.values())

    async def check_settings(self, settings: Mapping[str, str], *, major: int) -> Sequence[str]:
        return await self._supervisor.validate(major, settings) if settings else []

    @property
    def pools(self) -> bool:
        return self._poolers is not None

    def pooler(self, compute_id: str) -> Backend | None:
        """Where the pooler of a running compute listens, once it does."""
        status = self._poolers.status(compute_id) if self._poolers is not None else None
        if status is None or status.state != "running" or status.port is None:
            return None
        return Backend(LISTEN, status.port, tls=False)

    def pooler_log(self, compute_id: str) -> Path:
        assert self._poolers is not None
        return self._poolers.log_file(compute_id)

    async def start_pooler(self, compute_id: str) -> None:
        """Beside a compute that runs; one that there is gets the compute's size. Raises PoolerError, NotRunning."""
        if self._poolers is None:
            return
        # One after the other: a second start would choose another port, and for that end what the first has started.
        async with self._pooler_starts.setdefault(compute_id, asyncio.Lock()):
            await self._start_pooler(self._poolers, compute_id)

    async def _start_pooler(self, poolers: Poolers, compute_id: str) -> None:
        spec, socket_ = self._supervisor.spec(compute_id), self._supervisor.socket(compute_id)
        now = poolers.status(compute_id)
        tried: set[int] = set()
        while True:
            port = now.port if now.state == "running" and now.port else self._private_port(tried)
            try:
                await poolers.start(compute_id, port=port, socket=socket_, cu=spec.cu)
            except PoolerPortTaken:
                tried.add(port)
                if len(tried) == PORT_TRIES:
                    raise
            else:
                return
            finally:
                self._chosen.discard(port)

    async def verifier(self, compute_id: str, role: str) -> str | None:
        """What a role proves its password against, known to the pooler too if there is one."""
        if self._poolers is not None and self._poolers.status(compute_id).state == "running":
            return await self._poolers.verifier(compute_id, role)
        return await self._supervisor.verifier(compute_id, role)

    async def connected(self) -> Mapping[str, int]:
        ports = {one.port: one.id for one in self._supervisor.list() if one.state == "running" and one.port}
        if self._poolers is not None:
            # A pooler reaches its compute by the Unix socket: its clients are counted at its own port, once.
            ports |= {one.port: one.compute_id for one in self._poolers.list() if one.state == "running" and one.port}
        found = await asyncio.to_thread(census.connected, frozenset(ports))
        clients: Counter[str] = Counter()
        for port, count in found.items():
            clients[ports[port]] += count
        return clients

    async def is_working(self, compute_id: str) -> bool:
        try:
            return await self._supervisor.is_working(compute_id)
        except (ComputeError, psycopg.Error):
            # It does not run, or lets nobody in.
            return False

    def tls(self, major: int) -> bool:
        build = self._binaries.find(major)
        return build is not None and build.has_openssl

    def free_port(self, taken: frozenset[int], *, after: int | None) -> int:
        for port in in_turn(self._ports, after):
            if port not in taken and can_listen(self._listen, port):
                return port
        raise Unprocessable(
            f"no port from {self._ports[0]} to {self._ports[1]} is free for another endpoint; delete endpoints, "
            "or give `lamp up` a wider range (--endpoint-ports)",
            code="ENDPOINTS_LIMIT_EXCEEDED",
        )


def in_turn(ports: tuple[int, int], after: int | None) -> Iterator[int]:
    """All of a range, both ends included, beginning behind `after`. Pure."""
    first, last = ports
    begin = first if after is None or not first <= after < last else after + 1
    yield from range(begin, last + 1)
    yield from range(first, begin)


def can_listen(address: str, port: int) -> bool:
    """Whether nobody has this port now. With SO_REUSEADDR, as Postgres: what lingers in TIME_WAIT is no obstacle."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True
