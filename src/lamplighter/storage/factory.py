"""Opens the volumes of a data directory with the driver that made them, or with the best one that works."""

from __future__ import annotations

import json
from pathlib import Path

from lamplighter.files import write_atomic
from lamplighter.storage import linux, plan
from lamplighter.storage.errors import DriverMismatch, DriverUnavailable, StorageError
from lamplighter.storage.pool import mount_pool
from lamplighter.storage.ports import Owner, Volumes
from lamplighter.storage.probe import probe, probe_driver
from lamplighter.storage.volumes.base import BaseVolumes, Site
from lamplighter.storage.volumes.btrfs import BtrfsVolumes
from lamplighter.storage.volumes.copy import CopyVolumes
from lamplighter.storage.volumes.overlay import OverlayVolumes
from lamplighter.storage.volumes.reflink import ReflinkVolumes

_DRIVERS: dict[str, type[BaseVolumes]] = {
    "btrfs": BtrfsVolumes,
    "reflink": ReflinkVolumes,
    "overlay": OverlayVolumes,
    "copy": CopyVolumes,
}
_RECORD = "driver.json"


def open_volumes(
    root: Path,
    *,
    driver: str | None = None,
    owner: Owner | None = None,
    reserve_bytes: int | None = None,
) -> Volumes:
    """The volumes below `root`, or in its pool, which is mounted. Call `recover()` on them before anything else.

    `driver` None: the one that made what is there, else the best that works. `owner` is whom postmasters run as when
    this process is root; None leaves everything with whoever runs this. `reserve_bytes` None: `plan.default_reserve`.
    Blocking, some milliseconds. Raises DriverUnavailable, DriverMismatch, PoolError, OSError.
    """
    root = root.absolute()
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    pool = mount_pool(root)
    home = root if pool is None else pool.mount_point
    site = Site(
        root=home,
        owner=owner,
        reserve_bytes=reserve_bytes,
        host=None if pool is None else root,
        remount=None if pool is None else lambda: mount_pool(root),
    )
    for directory in {root, home}:
        site.make_room(directory)
    return _DRIVERS[_choose(home, driver, owner)](site)


def recorded_driver(home: Path) -> str | None:
    """The driver that made the volumes in `home`, or None when there are none yet."""
    try:
        return str(json.loads((home / _RECORD).read_bytes())["driver"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        message = f"{home / _RECORD} cannot be read: {error}"
        raise StorageError(message) from error


def _choose(home: Path, wanted: str | None, owner: Owner | None) -> str:
    if wanted is not None and wanted not in _DRIVERS:
        raise DriverUnavailable(wanted, f"there is no such driver; there are {', '.join(plan.DRIVERS)}")
    recorded = recorded_driver(home)
    if recorded is not None and wanted not in (None, recorded) and _has_volumes(home):
        raise DriverMismatch(str(wanted), recorded=recorded, root=home)
    driver = wanted or recorded
    if driver is None:
        driver = probe(home, owner, files=4).chosen
    else:
        result = probe_driver(home, driver, owner)
        if not result.usable:
            made = " (which made the volumes that are there)" if driver == recorded else ""
            raise DriverUnavailable(driver, f"{result.why}{made}")
    if driver != recorded:
        record = {"driver": driver, "filesystem": linux.filesystem(home)}
        write_atomic(home / _RECORD, json.dumps(record).encode())
    return driver


def _has_volumes(home: Path) -> bool:
    volumes = home / "volumes"
    return volumes.is_dir() and any(volumes.iterdir())
