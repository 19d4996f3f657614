"""Any program that takes the value on its standard input: `command:PROGRAM ARG...`, for stores that have no sink.

The program is run without a shell, with the few variables of the environment that it needs; what it prints is thrown
away. Its exit status says how it went, the codes of sysexits.h included. The value is never one of its arguments.
"""

from __future__ import annotations

import array
import fcntl
import os
import re
import select
import shlex
import shutil
import signal
import subprocess
import termios
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final, Self
from urllib.parse import parse_qsl

from lamplighter.keys.errors import PolicyError, SinkError, SinkNotFound, SinkRefused, SinkUnreachable
from lamplighter.keys.harden import child_environment
from lamplighter.keys.sinks.base import SOAK, Capabilities, Receipt, Sink
from lamplighter.keys.sinks.registry import no_options
from lamplighter.keys.value import MAX_LENGTH, KeyBuffer, wipe
from lamplighter.keys.wire import redact

_OPTIONS: Final = frozenset({"delete", "env", "read", "timeout"})
#: Unquoted and apart, so that no argument is taken for it: one that looks so is written in quotes.
_WRITTEN: Final = re.compile(r"\s\?(?P<query>[a-z]+=\S*)\s*$")
_TIMEOUT: Final = 60.0
_FORM: Final = "write command:PROGRAM ARG..., as command:gh secret set NEON_API_KEY; the value comes on its stdin"
#: Ways to ask for the value among the arguments, where every program on this machine could read it.
_PLACEHOLDER: Final = re.compile(
    r"""
      (?:^|[\s='"]) (?:\{\}|%s) (?:$|[\s'"])
    | [{<%@]\s* (?:neon_|api_|the_|new_)* (?:value|key|secret|token|password) \s*[}>%@]
    | \$\{? (?:neon_|api_|the_|new_)* (?:value|key|secret) \b
    | \$\(\s* (?:cat\b|<) | `\s*cat\b | \bxargs\b
    """,
    re.VERBOSE | re.IGNORECASE,
)
#: Neon's own, of today and of before they had a prefix.
_LOOKS_LIKE_A_KEY: Final = re.compile(r"\bnapi_\w{8}|\b(?=[a-z0-9]*[g-z])[a-z0-9]{64}\b")
#: sysexits.h: what EX_NOPERM and its like mean for us. 126 and 127 are what shells say.
_MEANINGS: Final[Mapping[int, type[SinkError]]] = {
    66: SinkNotFound,
    68: SinkUnreachable,
    69: SinkUnreachable,
    75: SinkUnreachable,
    77: SinkRefused,
    126: SinkRefused,
    127: SinkNotFound,
}
#: A piece of the value that is this long is not shown.
_PIECE: Final = 6
_MOST_STDERR: Final = 1 << 14
_SPARE: Final = 1 << 14


def _with_written(text: str, options: Mapping[str, str]) -> tuple[str, Mapping[str, str]]:
    """The command, and its options with those that stand at its end. Raises PolicyError for one that is there twice."""
    found = _WRITTEN.search(text)
    if found is None:
        return text, options
    written = parse_qsl(found["query"], keep_blank_values=True)
    merged = {**options, **dict(written)}
    if len(written) > len(dict(written)) or any(name in options for name, _ in written):
        raise PolicyError("an option of a command is there twice")
    return text[: found.start()], merged


@dataclass(slots=True)
class _Done:
    """How a program ended. `status` is negative for a signal, None when it took too long."""

    status: int | None
    output: bytearray = field(repr=False)
    length: int = 0
    unread: int = 0
    said: str = ""


class CommandSink(Sink):
    """Options: `read` and `delete` are commands too, and the first prints the value.

    `env` names variables that all of them may see besides the usual ones, with commas between; `timeout` is in seconds.
    Options may also stand at the end of the address, apart: `command:./deploy ?env=TOKEN&timeout=300`.
    """

    kind: ClassVar[str] = "command"

    def __init__(self, command: tuple[str, ...], options: Mapping[str, str]) -> None:
        self.command = command
        self._options = dict(options)
        self._read = _words(options["read"], "the option read") if "read" in options else None
        self._delete = _words(options["delete"], "the option delete") if "delete" in options else None
        self._env = tuple(filter(None, (name.strip() for name in options.get("env", "").split(","))))
        self._timeout = _seconds(options.get("timeout"))

    @classmethod
    def parse(cls, address: str, options: Mapping[str, str]) -> Self:
        text, options = _with_written(address.removeprefix("command:"), options)
        command = _words(text, "the address")
        if _PLACEHOLDER.search(" ".join(command)):
            raise PolicyError(
                "such a command has the value among its arguments, where every program of this machine can read it",
                hint=_FORM,
            )
        no_options("a command", options, _OPTIONS)
        return cls(command, options)

    def describe(self) -> str:
        return f"command:{shlex.join(self.command)}"

    @property
    def options(self) -> Mapping[str, str]:
        return self._options

    @property
    def capabilities(self) -> Capabilities:
        # What the program does with it is not known, so neither is when a consumer sees it.
        return Capabilities(readable=self._read is not None, effect="next deployment", soak=SOAK["next deployment"])

    def check(self) -> str:
        found = [self._program(each) for each in (self.command, self._read, self._delete) if each]
        return f"{found[0]} can be run; what it may do shows only when it is"

    def write(self, value: KeyBuffer, marker: str) -> Receipt:  # noqa: ARG002 - it has no place for a comment
        done = self._run(self.command, value)
        try:
            self._judge(self.command, done)
        finally:
            wipe(done.output)
        if done.unread:
            raise SinkError("the program ended well, but did not read the value", address=self.describe())
        return Receipt()

    def read_back(self) -> KeyBuffer | None:
        if self._read is None:
            return None
        done = self._run(self._read, None)
        try:
            self._judge(self._read, done)
            with memoryview(done.output) as whole, whole[: done.length] as view:
                length = _without_newline(view)
                if length > MAX_LENGTH:
                    raise SinkError("what the reading command prints is too long for a key", address=self.describe())
                with view[:length] as part:
                    return KeyBuffer(part) if length else None
        finally:
            wipe(done.output)

    def metadata(self) -> Receipt | None:
        """Nothing but whether the reading command finds something; without one, that is not known."""
        if self._read is None:
            return Receipt()
        value = self.read_back()
        if value is None:
            return None
        value.wipe()
        return Receipt()

    def delete(self) -> None:
        if self._delete is None:
            raise SinkError(
                "a command cannot take back what it stored", address=self.describe(), hint="give the option delete"
            )
        done = self._run(self._delete, None)
        wipe(done.output)
        self._judge(self._delete, done)

    # Programs

    def _program(self, command: tuple[str, ...]) -> str:
        found = shutil.which(command[0], path=child_environment(allow=self._env).get("PATH"))
        if found is None:
            raise SinkNotFound(f"there is no program {command[0]} that can be run", address=self.describe())
        return found

    def _run(self, command: tuple[str, ...], value: KeyBuffer | None) -> _Done:
        program = self._program(command)
        with ExitStack() as stack:
            ends = _Pipes(stack)
            why = ""
            try:
                process = subprocess.Popen(
                    command,
                    executable=program,
                    env=child_environment(allow=self._env),
                    stdin=ends.stdin,
                    stdout=subprocess.DEVNULL if value else ends.stdout[1],
                    stderr=ends.stderr[1],
                    # A group of its own, so that what it started ends with it.
                    start_new_session=True,
                )
            except OSError as error:
                why = error.strerror or type(error).__name__
            if why:
                raise SinkRefused(f"{program} does not start: {why}", address=self.describe())
            try:
                return _talk(process, ends, value, time.monotonic() + self._timeout)
            finally:
                _end(process)

    def _judge(self, command: tuple[str, ...], done: _Done) -> None:
        """Raise the error that the exit status stands for."""
        if done.status == 0:
            return
        name = Path(command[0]).name
        if done.status is None:
            raise SinkUnreachable(f"{name} took longer than {self._timeout:g} s", address=self.describe())
        ended = f"was ended by signal {-done.status}" if done.status < 0 else f"ended with status {done.status}"
        said = f": {done.said}" if done.said else ""
        raise _MEANINGS.get(done.status, SinkError)(f"{name} {ended}{said}", address=self.describe())


class _Pipes:
    """The pipes to one program. The reading end of its stdin is ours too: so it can be seen whether it was read."""

    def __init__(self, stack: ExitStack) -> None:
        self.stdin, self.feed = self._pipe(stack)
        self.stdout = self._pipe(stack)
        self.stderr = self._pipe(stack)
        os.set_blocking(self.feed, False)
        self._open = {self.stdin, self.feed, *self.stdout, *self.stderr}

    def _pipe(self, stack: ExitStack) -> tuple[int, int]:
        ends = os.pipe()
        for end in ends:
            stack.callback(self.close, end)
        return ends

    def close(self, end: int) -> None:
        if end in self._open:
            self._open.discard(end)
            os.close(end)

    def unread(self) -> int:
        """How many bytes are still in the program's stdin."""
        count = array.array("i", [0])
        fcntl.ioctl(self.stdin, termios.FIONREAD, count)
        return count[0]


def _talk(process: subprocess.Popen[Any], ends: _Pipes, value: KeyBuffer | None, deadline: float) -> _Done:
    """Feed the program and hear it out. What it says on stderr is kept only where it cannot be the value."""
    ends.close(ends.stdout[1])
    ends.close(ends.stderr[1])
    done = _Done(None, bytearray(MAX_LENGTH + 3 + _SPARE))
    errors = _Done(None, bytearray(_MOST_STDERR + _SPARE))
    try:
        fed = _feed(ends, value, {ends.stdout[0]: done, ends.stderr[0]: errors}, process, deadline)
        with suppress(subprocess.TimeoutExpired):
            done.status = process.wait(max(0.0, deadline - time.monotonic()))
        done.unread = 0 if fed and not ends.unread() else 1
        if value is not None:
            done.said = _harmless(errors, value)
    finally:
        wipe(errors.output)
    return done


def _feed(
    ends: _Pipes, value: KeyBuffer | None, heard: Mapping[int, _Done], process: subprocess.Popen[Any], deadline: float
) -> bool:
    """Until the program closed its outputs or ended; whether all of the value went into its stdin."""
    poll = select.poll()
    for end in heard:
        poll.register(end, select.POLLIN)
    left, sent, total = set(heard), 0, 0
    if value is None:
        ends.close(ends.feed)
    else:
        with value.reveal() as view:
            total = len(view)
        poll.register(ends.feed, select.POLLOUT)
    while left and time.monotonic() < deadline:
        for end, _ in poll.poll(100):
            if end == ends.feed and value is not None:
                with value.reveal() as view, view[sent:] as rest:
                    sent += os.write(end, rest)
                if sent == total:
                    poll.unregister(end)
                    ends.close(end)
            elif not _hear(end, heard[end]):
                poll.unregister(end)
                left.discard(end)
        # What it left running in the background may hold its outputs open for ever.
        if process.poll() is not None and not poll.poll(0):
            break
    return sent == total


def _hear(end: int, into: _Done) -> bool:
    """False at the end. What there is no room for goes over the spare part at the end, so that nobody waits for us."""
    start = min(into.length, len(into.output) - _SPARE)
    with memoryview(into.output) as whole, whole[start:] as room:
        count = os.readv(end, [room])
    into.length = max(into.length, start + count)
    return count > 0


def _harmless(errors: _Done, value: KeyBuffer) -> str:
    """The end of what the program said, in one line: nothing where a piece of the value is in it."""
    with value.reveal() as view:
        size = min(_PIECE, len(view))
        pieces = (view[at : at + size] for at in range(len(view) - size + 1))
        if any(errors.output.find(piece) >= 0 for piece in pieces):
            return "what it said held the value, and is not shown"
    with memoryview(errors.output) as whole, whole[max(0, errors.length - 2000) : errors.length] as tail:
        text = redact(str(tail, "utf-8", "replace"), 2000)
    return "".join(each if each.isprintable() else "?" for each in text)[-300:]


def _end(process: subprocess.Popen[Any]) -> None:
    """The program, and what it started, if it has not ended by itself."""
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _without_newline(view: memoryview) -> int:
    """The length without the one line end that programs put after what they print."""
    length = len(view)
    for end in (b"\n", b"\r"):
        if length and view[length - 1] == end[0]:
            length -= 1
        else:
            break
    return length


def _words(text: str, what: str) -> tuple[str, ...]:
    """The program and its arguments. Raises PolicyError, and shows nothing that may be a key."""
    if _LOOKS_LIKE_A_KEY.search(text):
        raise PolicyError(f"{what} seems to hold a key", hint=_FORM)
    try:
        words = shlex.split(text)
    except ValueError:
        words = []
    if not words or not words[0] or "\0" in text:
        raise PolicyError(f"{what} is no command", hint=_FORM)
    if "/" in words[0]:
        # Where a rotation is resumed from another directory, it must still be this program.
        words[0] = os.path.abspath(Path(words[0]).expanduser())  # noqa: PTH100 - links stay as they are
    return tuple(words)


def _seconds(text: str | None) -> float:
    if text is None:
        return _TIMEOUT
    try:
        seconds = float(text.removesuffix("s"))
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 3600:
        raise PolicyError("the option timeout of a command is in seconds, from 1 to 3600")
    return seconds
