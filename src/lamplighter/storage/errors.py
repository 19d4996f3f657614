"""What can go wrong with stored data, as one tree.

StorageError
|-- VolumeNotFound        no such volume
|-- VolumeBusy            a process still uses what must be unmounted
|-- InvalidVolumeId       an id that cannot be a directory's name
|-- ForeignLink           a symbolic link leads out of the data directory
|-- StorageFull           free space is below the reserve, or the disk is full
|-- WalMissing            WAL that a clone needs is gone from its source
|-- DriverUnavailable     the file system or the host cannot do what a driver needs
|   `-- DriverMismatch    the data was made with another driver
`-- PoolError             the loop file pool cannot be made, mounted or unmounted
    `-- ToolMissing       a program of the distribution is not installed
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


class StorageError(Exception):
    """The storage could not do what was asked."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").partition("\n")[0])


class VolumeNotFound(StorageError):
    """There is no such volume."""

    def __init__(self, volume_id: str) -> None:
        self.volume_id = volume_id
        super().__init__(f"There is no volume {volume_id!r}.")


class VolumeBusy(StorageError):
    """A process still uses the volume."""

    def __init__(self, path: Path) -> None:
        self.path = path
        super().__init__(f"{path} cannot be unmounted: a process still uses it. Stop its postmaster first.")


class InvalidVolumeId(StorageError):
    """A volume's id must be letters, digits, '_', '-' and '.', and begin with a letter or digit."""

    def __init__(self, volume_id: str) -> None:
        self.volume_id = volume_id
        super().__init__(f"{volume_id!r} cannot be a volume's id. {type(self).__doc__}")


class ForeignLink(StorageError):
    """A symbolic link in a data directory would be shared by the clone and its source."""

    def __init__(self, path: Path) -> None:
        self.path = path
        super().__init__(
            f"{path} is a symbolic link; a clone would share what it leads to with its source. "
            "Tablespaces outside of the data directory are not supported: drop them, or move their tables back."
        )


class StorageFull(StorageError):
    """Free space is below the reserve."""

    def __init__(self, *, path: Path, free_bytes: int, reserve_bytes: int, needed_bytes: int = 0) -> None:
        self.path = path
        self.free_bytes = free_bytes
        self.reserve_bytes = reserve_bytes
        self.needed_bytes = needed_bytes
        needed = f" and {_mib(needed_bytes)} for the new data" if needed_bytes else ""
        super().__init__(
            f"{path} has {_mib(free_bytes)} free; {_mib(reserve_bytes)} are kept in reserve for running branches"
            f"{needed}. Delete branches or add disk space."
        )


class WalMissing(StorageError):
    """WAL that a clone needs is gone from its source."""

    def __init__(self, files: Sequence[str]) -> None:
        self.files = tuple(files)
        super().__init__(
            f"The source no longer has the WAL that the clone needs ({', '.join(files[:3])}): "
            "checkpoints removed it during the copy. Nothing is lost; make the branch again."
        )


class DriverUnavailable(StorageError):
    """A storage driver does not work here."""

    def __init__(self, driver: str, why: str) -> None:
        self.driver = driver
        self.why = why
        super().__init__(f"The storage driver {driver!r} cannot be used: {why}.")


class DriverMismatch(DriverUnavailable):
    """The data was made with another driver."""

    def __init__(self, driver: str, *, recorded: str, root: Path) -> None:
        self.recorded = recorded
        self.root = root
        super().__init__(
            driver,
            f"the volumes in {root} were made with {recorded!r} and cannot be mixed; use {recorded!r}, "
            "or another data directory",
        )


class PoolError(StorageError):
    """The storage pool could not be used."""


class ToolMissing(PoolError):
    """A program that the pool needs is not installed."""

    def __init__(self, program: str, *, package: str) -> None:
        self.program = program
        self.package = package
        super().__init__(f"{program} is not installed; install the package {package} (apt-get install {package}).")


def _mib(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"
