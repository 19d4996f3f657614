"""Buckets that all processes of one user on one machine count in together: a small file, locked for each change.

The file is in `$XDG_RUNTIME_DIR`, or in a directory of ours below the temporary one; only this user can open it. Its
name is a hash of server and key. Times in it are those of the machine's monotonic clock, and hold for one boot. What a
process had in flight when it was killed is struck off by the next that looks.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import itertools
import json
import os
import stat
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from lamplighter.api.secret import Secret
from lamplighter.client.errors import ConfigurationError
from lamplighter.client.pacing import WHOLE, Bucket, Buckets

#: A process that holds the lock this long was stopped in that very moment. Better a 429 than to stand still with it.
_LOCK_SECONDS: Final = 1.0
_LOCK_PAUSE: Final = 0.0005
#: Nothing is in flight for longer: neither a process in another container, which we cannot see, nor one that hangs.
_FORGOTTEN_AFTER: Final = 600.0
_LOOK_AFTER_OTHERS_EVERY: Final = 1.0

_numbers = itertools.count()

#: When each owner was seen last, and how many requests it has in flight on each route.
_Owners = dict[str, tuple[float, Mapping[str, int]]]


class SharedStore:
    """The `Store` of one client. Raises ConfigurationError where its file could be another user's."""

    # An answer that another process waits for cannot wake us.
    poll = 0.01

    def __init__(
        self,
        base_url: str,
        api_key: Secret,
        *,
        directory: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = (directory or own_directory(os.environ)) / file_name(base_url, api_key)
        self._clock = clock
        self._number = next(_numbers)
        self._boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        self._file = -1
        self._process = -1
        self._owner = ""
        self._mine: Counter[str] = Counter()
        self._others: _Owners = {}
        self._looked = 0.0
        self._buckets = Buckets()
        self._before: Counter[str] = Counter()

    def __enter__(self) -> Buckets:
        self._open()
        self._lock()
        now = self._clock()
        self._buckets, self._others = self._read(now)
        self._before = self._flying()
        return self._buckets

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        try:
            flying = self._flying()
            self._mine.update({route: flying[route] - self._before[route] for route in flying | self._before})
            self._mine = +self._mine
            self._write(self._clock())
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        """Strike off what is in flight, and close the file."""
        if self._file < 0 or self._process != os.getpid():
            return
        with self as buckets:
            for route, count in self._mine.items():
                buckets.of(route, self._clock()).flying -= count
        os.close(self._file)
        self._file = -1

    # The file

    def _open(self) -> None:
        process = os.getpid()
        if self._file >= 0 and process == self._process and os.fstat(self._file).st_nlink:
            return
        if self._file >= 0:
            # After a fork we would share parent's lock, and after a cleaner took the file nobody else would see ours.
            os.close(self._file)
        if process != self._process:
            self._process, self._mine = process, Counter()
            self._owner = f"{process}:{started(process)}:{self._number}"
        try:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise ConfigurationError(f"the file for pacing cannot be opened: {error}") from None
        facts = os.fstat(self._file)
        if facts.st_uid != os.geteuid() or not stat.S_ISREG(facts.st_mode) or facts.st_mode & 0o077:
            os.close(self._file)
            self._file = -1
            raise ConfigurationError(f"{self._path} can be read or written by others: remove it")

    def _lock(self) -> None:
        end = time.monotonic() + _LOCK_SECONDS
        while time.monotonic() < end:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            time.sleep(_LOCK_PAUSE)

    def _read(self, now: float) -> tuple[Buckets, _Owners]:
        content = os.pread(self._file, os.fstat(self._file).st_size, 0)
        try:
            # Something may stand behind it: of a process that was killed before it cut the file off.
            state, _ = json.JSONDecoder().raw_decode(content.decode())
            return self._decoded(state, now)
        except (ValueError, TypeError, KeyError, AttributeError):
            return Buckets(), {}

    def _decoded(self, state: Any, now: float) -> tuple[Buckets, _Owners]:
        if state["boot"] != self._boot:
            return Buckets(), {}
        others: _Owners = {
            str(owner): (float(seen), {str(route): int(count) for route, count in routes.items()})
            for owner, (seen, routes) in state["owners"].items()
            if owner != self._owner
        }
        if now - self._looked > _LOOK_AFTER_OTHERS_EVERY:
            self._looked = now
            others = {owner: facts for owner, facts in others.items() if _is_there(owner, facts[0], now)}
        buckets = Buckets(hold=float(state["hold"]))
        flying = Counter(self._mine)
        for _, routes in others.values():
            flying.update(routes)
        flying[WHOLE] = flying.total()
        for name, (tokens, at) in state["levels"].items():
            level = Bucket(buckets.rate_of(name), float(tokens), float(at))
            level.flying = flying[name]
            buckets.levels[name] = level
        return buckets, others

    def _flying(self) -> Counter[str]:
        return Counter({name: level.flying for name, level in self._buckets.levels.items() if name != WHOLE})

    def _write(self, now: float) -> None:
        owners = {owner: [seen, dict(routes)] for owner, (seen, routes) in self._others.items()}
        if self._mine:
            owners[self._owner] = [now, dict(self._mine)]
        state = {
            "boot": self._boot,
            "hold": self._buckets.hold,
            "levels": {
                name: [level.tokens, level.at] for name, level in self._buckets.levels.items() if not level.is_full(now)
            },
            "owners": owners,
        }
        content = json.dumps(state).encode()
        os.pwrite(self._file, content, 0)
        os.ftruncate(self._file, len(content))


def own_directory(environ: Mapping[str, str]) -> Path:
    """The directory of this user's files, made if need be. Raises ConfigurationError if others can write in it."""
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    path = (
        Path(runtime) / "lamplighter"
        if Path(runtime).is_absolute() and Path(runtime).is_dir()
        else Path(tempfile.gettempdir()) / f"lamplighter-{os.geteuid()}"
    )
    try:
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)
        facts = path.lstat()
    except OSError as error:
        raise ConfigurationError(f"the directory for pacing cannot be made: {error}") from None
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.geteuid() or facts.st_mode & 0o077:
        raise ConfigurationError(f"{path} is not ours alone: remove it, or make it a directory of yours with mode 0700")
    return path


def file_name(base_url: str, api_key: Secret) -> str:
    """Says neither the server nor the key."""
    return "pacing-" + hashlib.sha256(f"{base_url}\0{api_key.reveal()}".encode()).hexdigest()[:32]


def started(process: int) -> str:
    """When a process began, in ticks since boot: with its id, that is who it is. Empty when it is not there."""
    try:
        facts = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return facts.rpartition(")")[2].split()[19]


def _is_there(owner: str, seen: float, now: float) -> bool:
    process, begun, _ = owner.split(":")
    return now - seen < _FORGOTTEN_AFTER and started(int(process)) == begun != ""
