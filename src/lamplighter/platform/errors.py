"""What can go wrong with a platform as a whole, as one tree.

PlatformError
├── AlreadyRunning      a platform runs on the data directory
├── PortBusy            what it is to listen on is taken
├── ForeignCatalog      catalog and data directory belong to different platforms
├── SealKeyMissing      the catalog's passwords are sealed with a key that is not there
├── GatewayFailed       the gateway's process did not start
├── RedirectFailed      nft did not do what it was told
├── NotOurs             the platform is another user's
├── StillStopping       it was told to stop, and has not ended in time
└── BuildInUse          postmasters run from a build that was to be removed
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lamplighter.platform.builds import BuildUser
    from lamplighter.platform.state import Running


class PlatformError(Exception):
    """The platform cannot do what was asked."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip().partition("\n")[0])


class AlreadyRunning(PlatformError):
    """A platform runs on this data directory already."""

    def __init__(self, data_dir: Path, running: Running | None) -> None:
        self.data_dir = data_dir
        self.running = running
        where = f" (process {running.pid}, {running.base_url})" if running else ""
        super().__init__(f"a platform runs on {data_dir} already{where}; stop it with `lamp down`")


class PortBusy(PlatformError):
    """The API's port, or that of another `option`, is taken; choose another."""

    def __init__(self, host: str, port: int, why: str, *, option: str = "--port") -> None:
        self.host = host
        self.port = port
        self.option = option
        super().__init__(
            f"cannot listen on {host}:{port} ({why}); choose another port with {option}, or end what has it"
        )


class ForeignCatalog(PlatformError):
    """The catalog and the data directory belong to different platforms."""

    def __init__(self, data_dir: Path, why: str) -> None:
        self.data_dir = data_dir
        super().__init__(
            f"the catalog is not that of {data_dir}: {why}; give the one that belongs to it (--catalog-url), restore "
            "it from a backup, or begin with another --data-dir"
        )


class SealKeyMissing(PlatformError):
    """The key file that role passwords are sealed with is not there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        super().__init__(f"{path} is missing, and the catalog holds passwords sealed with it: restore it from a backup")


class GatewayFailed(PlatformError):
    """The gateway's process did not start; its log, gateway.log in the data directory's logs, tells why."""


class RedirectFailed(PlatformError):
    """nft did not do what it was told, and nothing of it holds."""

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(f"the kernel redirect cannot be changed: {why}")


class NotOurs(PlatformError):
    """The platform is another user's."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        super().__init__(f"what runs on {data_dir} is another user's; run this as that user")


class StillStopping(PlatformError):
    """The platform was told to stop and has not ended in time."""

    def __init__(self, pid: int, seconds: float) -> None:
        self.pid = pid
        self.seconds = seconds
        super().__init__(
            f"the platform (process {pid}) is still stopping after {seconds:g} s; "
            "it goes on with that: run this again to wait longer, and look at what it prints"
        )


class BuildInUse(PlatformError):
    """Postmasters run from this build; stop them before it is removed."""

    def __init__(self, major: int, users: Iterable[BuildUser]) -> None:
        self.major = major
        self.users = tuple(users)
        named = ", ".join(f"process {one.pid} on {one.data_dir}" for one in self.users[:3])
        more = f" and {len(self.users) - 3} more" if len(self.users) > 3 else ""
        super().__init__(
            f"PostgreSQL {major} is in use ({named}{more}); suspend these computes, or stop the platform with "
            "`lamp down`, and try again"
        )
