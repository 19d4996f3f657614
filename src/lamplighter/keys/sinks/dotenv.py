"""A line of a dotenv file: `dotenv:PATH#NAME`.

The file is replaced as a whole, in one step, and keeps its mode, owner and every other byte; behind a symbolic link the
file that it leads to is replaced, not the link. A file that others may read, or that git would take in, is refused.
"""

from __future__ import annotations

import os
import re
import stat
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar, Final, Self

from lamplighter.files import sync_directory
from lamplighter.keys.errors import PolicyError, SinkError, SinkNotFound, SinkRefused, SinkUnsafe
from lamplighter.keys.harden import child_environment
from lamplighter.keys.sinks.base import SOAK, Capabilities, Receipt, Sink
from lamplighter.keys.sinks.registry import no_options
from lamplighter.keys.value import KeyBuffer, wipe

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")
_LARGEST: Final = 1 << 20
#: What needs no quotes in any reader of such files.
_PLAIN: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-.:/+=@%,~^")


class DotenvSink(Sink):
    kind: ClassVar[str] = "dotenv"

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        self.name = name
        self._line = re.compile(
            rb"^[ \t]*(?:export[ \t]+)?" + name.encode() + rb"[ \t]*=[ \t]*(?P<value>[^\n]*?)[ \t]*\r?$", re.MULTILINE
        )

    @classmethod
    def parse(cls, address: str, options: Mapping[str, str]) -> Self:
        path, mark, name = address.removeprefix("dotenv:").rpartition("#")
        if not mark or not path or not _NAME.fullmatch(name):
            raise PolicyError(f"{address!r} is no dotenv address: write dotenv:PATH#NAME, as dotenv:.env#NEON_API_KEY")
        no_options(address, options)
        # Where a rotation is resumed from another directory, the address must still mean this file.
        return cls(Path(os.path.abspath(Path(path).expanduser())), name)  # noqa: PTH100 - links stay as they are

    def describe(self) -> str:
        return f"dotenv:{self.path}#{self.name}"

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(readable=True, effect="process restart", soak=SOAK["process restart"])

    def check(self) -> str:
        path = self._target()
        if not path.parent.is_dir():
            raise SinkNotFound(f"there is no directory {path.parent}", address=self.describe())
        if not os.access(path.parent, os.W_OK | os.X_OK):
            raise SinkRefused(f"may not write in {path.parent}", address=self.describe())
        self._check_git(path)
        return f"{path} can be written" if self._facts(path) else f"{path} will be made"

    def write(self, value: KeyBuffer, marker: str) -> Receipt:  # noqa: ARG002 - other lines are not ours to add
        path = self._target()
        facts = self._facts(path)
        self._check_git(path)
        old = self._read(path) if facts else bytearray()
        try:
            new = self._changed(old, value)
        finally:
            wipe(old)
        try:
            self._replace(path, new, facts)
        finally:
            wipe(new)
        return self._receipt(path)

    def read_back(self) -> KeyBuffer | None:
        path = self._target()
        if self._facts(path) is None:
            return None
        content = self._read(path)
        try:
            found = list(self._line.finditer(content))
            # Of two lines with one name readers take the last.
            span = found[-1].span("value") if found else (0, 0)
            del found
            return _unquoted(content, *span, address=self.describe())
        finally:
            wipe(content)

    def metadata(self) -> Receipt | None:
        path = self._target()
        if self._facts(path) is None:
            return None
        content = self._read(path)
        try:
            there = self._line.search(content) is not None
        finally:
            wipe(content)
        return self._receipt(path) if there else None

    def delete(self) -> None:
        path = self._target()
        facts = self._facts(path)
        if facts is None:
            return
        content = self._read(path)
        kept = bytearray(re.sub(self._line.pattern + rb"\n?", b"", content, flags=re.MULTILINE))
        try:
            if kept == content:
                return
            if kept:
                self._replace(path, kept, facts)
            else:
                self._remove(path)
        finally:
            wipe(content)
            wipe(kept)

    # The file

    def _target(self) -> Path:
        try:
            return self.path.resolve()
        except (OSError, RuntimeError):
            pass
        raise SinkUnsafe(f"{self.path} is a symbolic link that leads nowhere", address=self.describe())

    def _facts(self, path: Path) -> os.stat_result | None:
        """None when there is no such file. Raises SinkUnsafe for one that is not ours alone."""
        try:
            facts = path.stat()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._failed(error) from None
        if not stat.S_ISREG(facts.st_mode):
            raise SinkUnsafe(f"{path} is no regular file", address=self.describe())
        if stat.S_IMODE(facts.st_mode) & 0o077:
            raise SinkUnsafe(
                f"others may read {path}", address=self.describe(), hint=f"chmod 600 {path}, then run it again"
            )
        return facts

    def _check_git(self, path: Path) -> None:
        """A value in a file that git tracks, or would take in, is a value that gets published."""
        if not any((each / ".git").exists() for each in path.parents):
            return
        try:
            done = subprocess.run(
                ["git", "check-ignore", "--quiet", "--", str(path)],
                cwd=path.parent,
                env=child_environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=30,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            # Without git nobody commits it from here.
            return
        # 1 is "not ignored"; a tracked file is not ignored either. 128 is a repository that git does not work in.
        if done.returncode == 1:
            raise SinkUnsafe(
                f"git would take in {path}", address=self.describe(), hint=f"put {path.name} into .gitignore"
            )

    def _read(self, path: Path) -> bytearray:
        try:
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                return self._fill(handle)
            finally:
                os.close(handle)
        except OSError as error:
            raise self._failed(error) from None

    def _fill(self, handle: int) -> bytearray:
        content = bytearray(os.fstat(handle).st_size)
        if len(content) > _LARGEST:
            raise SinkError("is too large for a dotenv file", address=self.describe())
        with memoryview(content) as view:
            done = 0
            while done < len(content) and (count := os.readv(handle, [view[done:]])):
                done += count
        if done < len(content):
            raise SinkError("changed while it was read", address=self.describe())
        return content

    def _changed(self, old: bytearray, value: KeyBuffer) -> bytearray:
        """The content with the value at its last line, and no other byte changed."""
        matches = [each.span("value") for each in self._line.finditer(old)]
        start, end = matches[-1] if matches else (len(old), len(old))
        lead, tail = b"", b""
        if not matches:
            lead = (b"" if not old or old.endswith(b"\n") else b"\n") + self.name.encode() + b"="
            tail = b"\n"
        with value.reveal() as view:
            quoted = _quoted(view, self.describe())
        with memoryview(old) as whole, whole[:start] as head, whole[end:] as rest:
            parts = (head, lead, quoted, tail, rest)
            new, at = bytearray(sum(len(part) for part in parts)), 0
            for part in parts:
                new[at : at + len(part)] = part
                at += len(part)
        wipe(quoted)
        return new

    def _replace(self, path: Path, content: bytearray, facts: os.stat_result | None) -> None:
        """As `files.write_atomic`, from a buffer, and with the owner and the mode that the file had."""
        # Always the same name: what a crash leaves behind holds a value, and the next write takes it away.
        temporary = path.with_name(f".{path.name}.lamplighter-new")
        try:
            temporary.unlink(missing_ok=True)
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                os.fchmod(handle, stat.S_IMODE(facts.st_mode) if facts else 0o600)
                if facts and (facts.st_uid, facts.st_gid) != (os.geteuid(), os.getegid()):
                    os.fchown(handle, facts.st_uid, facts.st_gid)
                with memoryview(content) as view:
                    done = 0
                    while done < len(content):
                        done += os.write(handle, view[done:])
                os.fsync(handle)
            finally:
                os.close(handle)
            temporary.replace(path)
            sync_directory(path.parent)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise self._failed(error) from None

    def _remove(self, path: Path) -> None:
        try:
            path.unlink(missing_ok=True)
            sync_directory(path.parent)
        except OSError as error:
            raise self._failed(error) from None

    def _receipt(self, path: Path) -> Receipt:
        facts = path.stat()
        return Receipt(
            version=f"{facts.st_ino}-{facts.st_mtime_ns}",
            updated_at=datetime.fromtimestamp(facts.st_mtime_ns / 1e9, UTC),
        )

    def _failed(self, error: OSError) -> SinkError:
        kind = {PermissionError: SinkRefused, FileNotFoundError: SinkNotFound, NotADirectoryError: SinkNotFound}
        return kind.get(type(error), SinkError)(f"cannot use the file: {error.strerror}", address=self.describe())


def _quoted(view: memoryview, address: str) -> bytearray:
    """The value as a reader of such files understands it: bare, or between single quotes, where nothing is special."""
    if any(byte in b"\n\r\0" for byte in view) or (b"'"[0] in view and (b'"'[0] in view or b"\\"[0] in view)):
        raise SinkError("a dotenv file cannot hold such a value", address=address)
    mark = b"" if all(byte in _PLAIN for byte in view) else (b'"' if b"'"[0] in view else b"'")
    quoted = bytearray(len(view) + 2 * len(mark))
    quoted[: len(mark)] = mark
    quoted[len(mark) : len(mark) + len(view)] = view
    quoted[len(mark) + len(view) :] = mark
    return quoted


def _unquoted(content: bytearray, start: int, end: int, *, address: str) -> KeyBuffer | None:
    with memoryview(content) as view:
        if end - start >= 2 and view[start] == view[end - 1] and view[start] in b"'\"":
            # Between double quotes a backslash and a dollar mean something: such a value is not one that we wrote.
            if view[start] == b'"'[0] and any(byte in b'\\$"' for byte in view[start + 1 : end - 1]):
                raise SinkError("holds a value with escapes, which is not read", address=address)
            start, end = start + 1, end - 1
        else:
            # A comment after a bare value.
            comment = content.find(b" #", start, end)
            end = comment if comment >= 0 else end
            while end > start and view[end - 1] in b" \t":
                end -= 1
        if end <= start:
            return None
        if end - start > 65_536:
            raise SinkError("holds a value that is too long for a key", address=address)
        with view[start:end] as value:
            return KeyBuffer(value)
