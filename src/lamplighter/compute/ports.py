"""What running Postgres promises to the control plane.

A compute is one postmaster on one data directory, known by its id (an endpoint's, or the catalog's). It is not a child
of anybody: it outlives the process that started it, and is found again by its identity.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

State = Literal["running", "stopped", "crashed"]


@dataclass(frozen=True, slots=True)
class Standby:
    """A hot standby follows the compute `primary_id` through its Unix socket and the slot `slot`."""

    primary_id: str
    slot: str


@dataclass(frozen=True, slots=True)
class ComputeSpec:
    """All that a start needs to know. Equal specs render equal configurations.

    `port` None means: no TCP at all, only the platform's Unix socket (the catalog, maintenance of a sleeping branch).
    `cu` is the size in Neon's compute units (1 CU = 1 vCPU and 4 GB of memory). `settings` are Postgres settings of the
    user (`pg_settings` of an endpoint), which never override what keeps data safe.
    """

    id: str
    major: int
    data_dir: Path
    enter: tuple[str, ...] = ()
    listen: str = "127.0.0.1"
    port: int | None = None
    cu: float = 0.25
    settings: Mapping[str, str] = field(default_factory=dict)
    standby: Standby | None = None
    logical_replication: bool = False


@dataclass(frozen=True, slots=True)
class ComputeStatus:
    """What is known of a compute now. `reason` tells how it ended, in a sentence, when it crashed."""

    id: str
    state: State
    pid: int | None = None
    started_at: float | None = None
    port: int | None = None
    memory_bytes: int | None = None
    reason: str = ""


class PostgresBuild(Protocol):
    """The programs of one PostgreSQL, as `binaries.Build` describes them."""

    @property
    def major(self) -> int: ...

    @property
    def lib_dir(self) -> Path:
        """Where the libraries of extensions lie."""
        ...

    @property
    def has_openssl(self) -> bool: ...

    def program(self, name: str) -> Path:
        """Path of `postgres`, `pg_dump` and so on."""
        ...

    def environment(self) -> dict[str, str]:
        """The whole environment for such a program."""
        ...


#: Called (in the event loop) with the id and a sentence when a postmaster ends that nobody asked to end.
CrashListener = Callable[[str, str], None]


@dataclass(frozen=True, slots=True)
class RoleSpec:
    """A role that the API made. `password` None leaves the one it has. Never logged; repr hides the password.

    `new`: it is to be made, so one of that name that the platform did not make is no one's to take over.
    `replication`: it may open replication connections. Those that name a database look like any other to `pg_hba.conf`,
    and allow a physical base backup of the whole cluster, so it is for projects that asked for logical replication.
    """

    name: str
    password: str | None = field(repr=False)
    new: bool = False
    replication: bool = False


@dataclass(frozen=True, slots=True)
class DatabaseSpec:
    """A database that the API made. `was` is its former name, when it is to be renamed.

    `new`: it is to be made, so one of that name with another owner was made by SQL, and is not taken over.
    """

    name: str
    owner: str
    was: str | None = None
    new: bool = False


@dataclass(frozen=True, slots=True)
class Changes:
    """What `apply` is to bring about inside one Postgres. Applying it twice is the same as once.

    Order: roles are made, databases renamed, made and given to their owner, databases dropped, roles dropped. What a
    dropped role owns goes to the owner of the database that it lies in, else to `neon_superuser`; never to a superuser,
    because a SECURITY DEFINER function would go with it.
    """

    roles: tuple[RoleSpec, ...] = ()
    databases: tuple[DatabaseSpec, ...] = ()
    drop_databases: tuple[str, ...] = ()
    drop_roles: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.roles or self.databases or self.drop_databases or self.drop_roles)
