"""The journal: a directory with a lock, an append-only file of JSON lines, a salt and a reserve of disk space.

Every line is on disk before the effect that it announces begins. A last line without its newline was torn by a crash
and never counted: it is cut off. The lock is the kernel's, so that no crash leaves it behind.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Self

from lamplighter import faults
from lamplighter.files import sync_directory, write_atomic
from lamplighter.keys import records as rec
from lamplighter.keys.errors import Busy, JournalBroken, JournalError, JournalFull
from lamplighter.keys.fold import State, apply
from lamplighter.keys.records import Record

FILE: Final = "journal.jsonl"
_SALT: Final = "salt"
_SALT_BYTES: Final = 32
_RESERVE: Final = "reserve"
#: What a rotation may still have to write down after its first effect, several times over.
RESERVE_BYTES: Final = 256 * 1024
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
#: Records that announce an effect: without room for them nothing is done. The others say what was done, and may use
#: the reserve.
_INTENTS: Final = (rec.MintIntent, rec.StoreIntent, rec.RevokeIntent, rec.Adopted)


def read_journal(directory: Path) -> tuple[Record, ...]:
    """What the journal says, without the lock and without changing anything. Empty where there is none.

    Raises JournalBroken, JournalError.
    """
    try:
        content = (directory / FILE).read_bytes()
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise JournalError(f"cannot read {directory / FILE}: {error.strerror}") from None
    return _parse(content[: _whole(content)])


def read_salt(directory: Path) -> bytes | None:
    """What fingerprints are made with, without the lock. None where there is none, or none that can be read."""
    with suppress(OSError):
        salt = (directory / _SALT).read_bytes()
        return salt if len(salt) == _SALT_BYTES else None
    return None


class Journal:
    """The journal of one state directory. Use it as a context manager: inside, the lock is ours, and `state` is true.

    It may be entered again while it is. Entering raises Busy, JournalBroken, JournalFull, JournalError.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.records: list[Record] = []
        self.state = State()
        self.salt = b""
        self._depth = 0
        self._lock = -1
        self._file = -1
        self._size = 0

    def __enter__(self) -> Self:
        if self._depth == 0:
            try:
                self._open()
            except BaseException:
                self._close()
                raise
        self._depth += 1
        return self

    def __exit__(self, *exc: object) -> None:
        self._depth -= 1
        if self._depth == 0:
            self._close()

    @contextmanager
    def released(self) -> Iterator[None]:
        """Let others have the lock for a while, as during a soak. `state` is read anew afterwards; raises as enter."""
        self._close()
        try:
            yield
        finally:
            self._open()

    def append(self, record: Record) -> None:
        """Write it down, durably. Raises JournalFull: the journal is then as it was before."""
        line = rec.write_record(record)
        # First of all: a record that cannot follow must not get into the file.
        state = apply(self.state, record)
        faults.point("keys.journal.before")
        if isinstance(record, _INTENTS):
            self._keep_reserve()
        try:
            self._write(line)
        except JournalFull:
            if isinstance(record, _INTENTS):
                raise
            (self.directory / _RESERVE).unlink(missing_ok=True)
            self._write(line)
        faults.point("keys.journal.after")
        self.state = state
        self.records.append(record)

    # The lock and the files

    def _open(self) -> None:
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY)
            self._check_owner()
            self._take_lock()
            path = self.directory / FILE
            self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            os.fchmod(self._file, 0o600)
            os.fsync(self._lock)
        except OSError as error:
            raise _failed(self.directory, error) from None
        self._load()
        self.salt = self._read_salt()

    def _check_owner(self) -> None:
        found = os.fstat(self._lock)
        if found.st_uid != os.geteuid():
            raise JournalError(f"{self.directory} belongs to another user")
        if stat.S_IMODE(found.st_mode) & 0o077:
            os.fchmod(self._lock, 0o700)

    def _take_lock(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy(f"another process is at work on {self.directory}") from None

    def _load(self) -> None:
        content = os.pread(self._file, os.fstat(self._file).st_size, 0)
        self._size = _whole(content)
        if self._size < len(content):
            self._cut()
        self.records = list(_parse(content[: self._size]))
        self.state = State()
        for number, record in enumerate(self.records, 1):
            self.state = _follow(self.state, record, number)

    def _read_salt(self) -> bytes:
        path = self.directory / _SALT
        with suppress(FileNotFoundError):
            salt = path.read_bytes()
            if len(salt) != _SALT_BYTES:
                raise JournalBroken(f"{path} is not as it was written", hint="restore the file from a backup")
            return salt
        if any(isinstance(record, rec.Minted) for record in self.records):
            raise JournalBroken(f"{path} is gone: no stored key can be told any more", hint="restore it from a backup")
        salt = secrets.token_bytes(_SALT_BYTES)
        try:
            write_atomic(path, salt)
        except OSError as error:
            raise _failed(path, error) from None
        return salt

    def _close(self) -> None:
        for handle in (self._file, self._lock):
            if handle >= 0:
                os.close(handle)
        self._file = self._lock = -1

    # Writing

    def _keep_reserve(self) -> None:
        """Room for what will have to be written once the effect has happened. Raises JournalFull."""
        path = self.directory / _RESERVE
        with suppress(FileNotFoundError):
            if path.stat().st_size == RESERVE_BYTES:
                return
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(handle, 0, RESERVE_BYTES)
                os.fsync(handle)
            finally:
                os.close(handle)
            sync_directory(self.directory)
        except OSError as error:
            path.unlink(missing_ok=True)
            raise _failed(path, error) from None

    def _write(self, line: bytes) -> None:
        try:
            written = os.write(self._file, line)
            if written == len(line):
                os.fsync(self._file)
                self._size += written
                return
            full: OSError = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            full = error
        self._cut()
        raise _failed(self.directory / FILE, full)

    def _cut(self) -> None:
        """Take off what does not count."""
        try:
            os.ftruncate(self._file, self._size)
            os.fsync(self._file)
        except OSError as error:
            raise _failed(self.directory / FILE, error) from None


def _failed(path: Path, error: OSError) -> JournalError:
    if error.errno in _FULL:
        return JournalFull(f"no room in {path.parent}: {error.strerror}")
    return JournalError(f"cannot keep {path}: {error.strerror}")


def _whole(content: bytes) -> int:
    """How many of these bytes are whole lines. A file system may leave zeros where a crash tore a write."""
    end = content.rfind(b"\n") + 1
    last = content.rfind(b"\n", 0, max(0, end - 1)) + 1
    return last if b"\0" in content[last:end] else end


def _parse(content: bytes) -> tuple[Record, ...]:
    found = []
    for number, line in enumerate(content.split(b"\n")[:-1], 1):
        try:
            found.append(rec.read_record(line))
        except ValueError as error:
            text = str(error)
        else:
            continue
        raise JournalBroken(f"line {number} of the journal makes no sense: {text}", line=number)
    return tuple(found)


def _follow(state: State, record: Record, number: int) -> State:
    try:
        return apply(state, record)
    except ValueError as error:
        raise JournalBroken(f"line {number} of the journal cannot follow: {error}", line=number) from None
