"""What the control plane asks of the machine below it: volumes and computes, as one port.

Features talk to this port alone. `lamplighter.platform` implements it with the drivers of `storage` and `compute`.
Every method may be run again after a crash and then does nothing, or what is still missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

#: The database that every new cluster has, ready to be given to its first owner.
TEMPLATE_DATABASE = "neondb"


@dataclass(frozen=True, slots=True)
class Follow:
    """A read-only compute is a hot standby: it streams from the compute `primary_id` whenever that runs."""

    primary_id: str
    primary_cu: float


@dataclass(frozen=True, slots=True)
class ComputeOrder:
    """One postmaster to run. `reachable` False: by the platform alone, for work inside a sleeping branch."""

    id: str
    volume_id: str
    major: int
    cu: float
    settings: Mapping[str, str]
    reachable: bool = True
    logical_replication: bool = False
    follow: Follow | None = None
    #: Standbys that stream from this compute once it runs.
    followers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RoleChange:
    """A role to make (`new`), or whose password to set; `password` None makes one that cannot log in by password.

    `replication`: it may open replication connections.
    """

    name: str
    password: str | None = field(repr=False)
    new: bool = False
    replication: bool = False


@dataclass(frozen=True, slots=True)
class DatabaseChange:
    """A database to make (`new`), to rename from `was`, or to give to `owner`."""

    name: str
    owner: str
    was: str | None = None
    new: bool = False


@dataclass(frozen=True, slots=True)
class SqlChanges:
    """What is to become true inside one branch's Postgres."""

    roles: Sequence[RoleChange] = ()
    databases: Sequence[DatabaseChange] = ()
    drop_databases: Sequence[str] = ()
    drop_roles: Sequence[str] = ()

    def __bool__(self) -> bool:
        return bool(self.roles or self.databases or self.drop_databases or self.drop_roles)


class DataPlane(Protocol):
    """Volumes and computes of this host."""

    @property
    def pools(self) -> bool:
        """Whether computes have a pooler beside them."""
        ...

    async def prepare(self, major: int) -> None:
        """Make sure that this major can run and that a template of it exists; may fetch it, once."""
        ...

    async def require_space(self) -> None:
        """Raise `api.errors.Unprocessable` when the reserve of free space is reached."""
        ...

    async def create_volume(self, volume_id: str, *, major: int) -> None:
        """An empty cluster with the database `neondb`, owned by the platform."""
        ...

    async def clone_volume(self, source_id: str, target_id: str, *, compute_id: str | None) -> None:
        """Copy on write. `compute_id` is the compute that works on the source whenever one does; it may run now."""
        ...

    async def delete_volume(self, volume_id: str) -> None: ...

    async def start_compute(self, order: ComputeOrder) -> None:
        """Open the volume and start a postmaster on it; returns when it has answered a query."""
        ...

    async def stop_compute(self, compute_id: str, *, volume_id: str) -> None:
        """Stop it, and leave the volume closed."""
        ...

    async def settle_crashed(self, compute_id: str) -> None:
        """End the pooler beside it, unless it runs again: clients would wait in there for a start nobody asks for."""
        ...

    def is_running(self, compute_id: str) -> bool: ...

    async def forget_compute(self, compute_id: str) -> None:
        """The compute is gone for good: its log and what else is kept of it go too."""
        ...

    async def apply(self, compute_id: str, changes: SqlChanges) -> None: ...

    async def copy_schema(self, source_compute: str, target_compute: str) -> None:
        """Every database of the source, its roles and objects without rows, into a fresh target."""
        ...

    async def keep_for_follower(self, primary_id: str, follower_id: str) -> None:
        """From now on the running primary keeps the WAL that this standby, about to be made, has not got yet."""
        ...

    async def drop_follower(self, primary_id: str, follower_id: str) -> None:
        """The standby is gone: its primary, if it runs, keeps no WAL for it any more."""
        ...

    async def logical_size(self, compute_id: str) -> int | None:
        """Bytes of all databases; None when the compute does not run."""
        ...

    async def check_settings(self, settings: Mapping[str, str], *, major: int) -> Sequence[str]:
        """What is wrong with these Postgres settings of a user, in sentences; empty when they may be used."""
        ...

    def free_port(self, taken: frozenset[int], *, after: int | None) -> int:
        """A port of the endpoints' range that is neither in `taken` nor in use on this host, the next one `after`.

        Round and round, so that an address that is gone leads nowhere for long: branches share their passwords.
        """
        ...

    async def connected(self) -> Mapping[str, int]:
        """How many clients each running compute has, by any way in; those without any may be left out."""
        ...

    async def is_working(self, compute_id: str) -> bool:
        """Whether a client's query or a logical replication subscriber is being served right now."""
        ...


#: What an endpoint's address leads to. `holding`: it is being started or stopped, and connections wait.
DoorState = Literal["awake", "asleep", "holding", "disabled"]


@dataclass(frozen=True, slots=True)
class Door:
    """An endpoint's address as its clients find it. `allowed` None lets everybody in, an empty one nobody."""

    endpoint_id: str
    project_id: str
    port: int
    pooler_port: int
    state: DoorState
    allowed: tuple[str, ...] | None = None


class Gateway(Protocol):
    """The doors of all endpoints. While the process behind it is away it is told nothing, and everything afterwards."""

    @property
    def doors(self) -> Mapping[str, Door]:
        """By endpoint, as they were last told."""
        ...

    async def set_door(self, door: Door) -> None:
        """Return when whoever connects meets it. One that is `awake` leads to the running compute.

        Raises Unavailable for one that is not, when the kernel still leads connections to a compute.
        """
        ...

    async def drop_door(self, endpoint_id: str) -> None:
        """The endpoint is gone: its connections are cut, its ports are free. No error if it is not known.

        Raises Unavailable as `set_door` does.
        """
        ...

    def refuse(self, endpoint_id: str, error: str) -> None:
        """Those who wait for this endpoint are told that it did not start, and why."""
        ...
