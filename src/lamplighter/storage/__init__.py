"""A branch's data: volumes that can be cloned. See `ports` for what is promised, `factory` for how to begin."""

from lamplighter.storage.factory import open_volumes
from lamplighter.storage.pool import Pool, PoolStatus, init_pool, mount_pool, pool_status, unmount_pool
from lamplighter.storage.ports import Backup, BackupEnd, Owner, Usage, Volume, Volumes
from lamplighter.storage.probe import DriverProbe, ProbeReport

__all__ = [
    "Backup",
    "BackupEnd",
    "DriverProbe",
    "Owner",
    "Pool",
    "PoolStatus",
    "ProbeReport",
    "Usage",
    "Volume",
    "Volumes",
    "init_pool",
    "mount_pool",
    "open_volumes",
    "pool_status",
    "unmount_pool",
]
