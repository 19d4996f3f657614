"""Three watchers of a program that holds a secret: its system calls, every process of the machine, the files it leaves.

The secret is known only afterwards, so each keeps what it saw until it is asked.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote_from_bytes

#: So many characters of a key in a row are a leak: with fewer, two keys may have them in common.
PIECE = 12
#: Calls that bring data in, and those without any that are many.
_UNTRACED = (
    "read,readv,pread64,recvfrom,recvmsg,mmap,munmap,mprotect,madvise,brk,lseek,fstat,newfstatat,stat,lstat,close,"
    "rt_sigaction,rt_sigprocmask,futex,poll,ppoll,epoll_wait,epoll_ctl,getdents64,clock_nanosleep,wait4"
)
_CALL = re.compile(r"\s*\d+\s+(\w+)\((?:(?:AT_FDCWD|\d+)<(.*?)>(?:\([^)]*\))?[,)])?")


class Pieces:
    """Every piece of some secrets as they are, backwards, in hex, escaped for URLs, and in Base64 at each offset."""

    def __init__(self, *secrets: bytes) -> None:
        forms = [form for secret in secrets for form in _forms(secret)]
        self._pieces = {form[at : at + PIECE] for form in forms for at in range(len(form) - PIECE + 1)}
        # Each piece has one of these in it, and they are six times fewer.
        half = PIECE // 2
        self._halves = {form[at : at + half] for form in forms for at in range(0, len(form) - half + 1, half)}

    def are_in(self, content: bytes) -> bool:
        return any(half in content for half in self._halves) and any(piece in content for piece in self._pieces)


def _forms(secret: bytes) -> Iterator[bytes]:
    escaped = "".join(f"%{byte:02x}" for byte in secret).encode()
    yield from (secret, secret[::-1], secret.hex().encode(), secret.hex().upper().encode(), escaped, escaped.upper())
    yield quote_from_bytes(secret).encode()
    for encode in (b64encode, urlsafe_b64encode):
        # Of each offset, what does not depend on the bytes around it.
        yield from (encode(secret[start:])[:-4] for start in range(3))


# System calls


def install_strace() -> None:
    if shutil.which("strace") is not None:
        return
    assert os.geteuid() == 0, "apt-get install strace"
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "update", "-qq"], ["apt-get", "install", "-y", "-qq", "strace"]):
        subprocess.run(command, env=env, check=True, stdout=subprocess.DEVNULL, timeout=300)


@dataclass(frozen=True)
class Call:
    """A system call: its name, and the path or the connection that its first argument stands for."""

    name: str
    target: str
    line: bytes


class Trace:
    """What `strace` wrote of a program and all that it started."""

    def __init__(self, path: Path) -> None:
        install_strace()
        self.path = path

    @property
    def command(self) -> list[str]:
        """Put before the one to watch. All of each string is kept, and all of each environment."""
        how = ["-f", "-yy", "-s", "4000000", "-e", "abbrev=none", "-e", f"trace=!{_UNTRACED}"]
        return ["strace", *how, "-o", str(self.path)]

    def calls(self) -> Iterator[Call]:
        with self.path.open("rb") as file:
            for line in file:
                found = _CALL.match(line.decode("latin-1"))
                if found:
                    yield Call(found[1], found[2] or "", line)

    def that_hold(self, secret: bytes) -> list[Call]:
        wanted = Pieces(secret)
        return [call for call in self.calls() if wanted.are_in(call.line)]


# Processes


class Processes:
    """Every command line and every environment that any process of the machine had, as seen every few milliseconds."""

    def __init__(self) -> None:
        self.rounds = 0
        self.command_lines: set[bytes] = set()
        self.environments: set[bytes] = set()

    @contextmanager
    def watched(self) -> Iterator[None]:
        ended = threading.Event()
        thread = threading.Thread(target=self._watch, args=(ended,))
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _watch(self, ended: threading.Event) -> None:
        while not ended.wait(0.005):
            for entry in Path("/proc").iterdir():
                if entry.name.isdigit():
                    # It may have ended meanwhile, or be somebody else's.
                    with suppress(OSError):
                        self.command_lines.add((entry / "cmdline").read_bytes())
                        self.environments.add((entry / "environ").read_bytes())
            self.rounds += 1

    def that_hold(self, secret: bytes) -> set[str]:
        wanted = Pieces(secret)
        seen = {"cmdline": self.command_lines, "environ": self.environments}
        return {kind for kind, contents in seen.items() if any(wanted.are_in(each) for each in contents)}


# Files


def files_that_hold(secret: bytes, *roots: Path) -> set[Path]:
    """Below directories, or single files. Names count as well."""
    wanted = Pieces(secret)
    found = set()
    for root in roots:
        assert root.exists(), root
        for path in [root] if root.is_file() else root.rglob("*"):
            content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
            if wanted.are_in(os.fsencode(path.name)) or wanted.are_in(content):
                found.add(path)
    return found
