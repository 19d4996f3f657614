"""The file of named servers, `$XDG_CONFIG_HOME/lamplighter/contexts.json`, and the keys that belong to them.

The file is ours alone (0600, in a directory that only we can write to) or it is not read. It is written whole, by one
process at a time; a file that cannot be read is never written over. What it means is decided in `config`.
"""

from __future__ import annotations

import fcntl
import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from lamplighter.api.secret import Secret
from lamplighter.client.config import (
    LOCAL,
    Context,
    Contexts,
    Environment,
    Server,
    choose,
    parse,
    render,
    seal,
    with_platform,
)
from lamplighter.client.errors import ConfigurationError
from lamplighter.client.keychain import open_keychain
from lamplighter.files import write_atomic

FILE: Final = "contexts.json"
#: Writers take milliseconds. One that was stopped while it wrote must not keep `lamp up` from showing its key.
LOCK_SECONDS: Final = 5.0
#: A thousand contexts take a fifth of it.
_LARGEST: Final = 1 << 20


def default_path(environ: Mapping[str, str] = os.environ) -> Path:
    """Where the file is. Raises ConfigurationError when there is no home directory."""
    configured = environ.get("XDG_CONFIG_HOME", "")
    # A relative one counts as not set (XDG Base Directory Specification).
    if Path(configured).is_absolute():
        return Path(configured) / "lamplighter" / FILE
    try:
        return Path.home() / ".config" / "lamplighter" / FILE
    except RuntimeError:
        raise ConfigurationError("there is no home directory to keep contexts in: set XDG_CONFIG_HOME") from None


def find_server(
    *,
    api_key: str | Secret | None = None,
    base_url: str | None = None,
    context: str | None = None,
    environ: Mapping[str, str] | None = None,
) -> Server:
    """The server to talk to, by the rules of `config.choose`, with this user's contexts. Raises ConfigurationError."""
    given = Secret(api_key) if isinstance(api_key, str) else api_key
    env = Environment.of(os.environ if environ is None else environ)
    del api_key, environ  # a traceback that shows locals is not to show them
    return choose(api_key=given, base_url=base_url, context=context, environ=env, contexts=ContextFile())


class ContextFile:
    """This user's contexts. Every method raises ConfigurationError, which names the file and says what to do."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path

    @property
    def path(self) -> Path:
        if self._path is None:
            self._path = default_path()
        return self._path

    def read(self) -> Contexts:
        """All contexts; none when there is no file."""
        text = self._text()
        if text is None:
            return Contexts()
        contexts = parse(text)
        if isinstance(contexts, str):
            raise ConfigurationError(f"{self.path} is broken: {contexts}; mend it, or remove it and log in again")
        return contexts

    def change(self, decide: Callable[[Contexts], Contexts]) -> Contexts:
        """Replace the contexts with what `decide` makes of them. No other change comes between."""
        self._make_directory()
        with self._locked():
            before = self.read()
            after = decide(before)
            if after != before:
                failed = _written(Path(os.path.realpath(self.path)), render(after))
                if failed:
                    raise ConfigurationError(f"{self.path} cannot be written: {failed}")
        return after

    # Keys

    def key(self, name: str, context: Context) -> Secret:
        """The key of a context that has one."""
        if not context.in_keychain:
            assert context.api_key is not None
            return self._seal(name, context.api_key)
        found = open_keychain().get(account(name, context.base_url))
        if found is None:
            raise ConfigurationError(
                f"the keychain has no key for the context {name!r}; `lamp login {name}` gives it one"
            )
        return self._seal(name, found)

    def _seal(self, name: str, key: Secret) -> Secret:
        try:
            return seal(key)
        except ConfigurationError as error:
            raise ConfigurationError(f"context {name!r}: {error}; `lamp login {name}` gives it another") from None

    def forget_key(self, name: str) -> Context:
        """Take the key of a context out of the keychain or the file. Returns the context as it was."""
        context = self.read().get(name)
        if context.in_keychain:
            # Before the file: else nobody would know any more that it is there.
            open_keychain().delete(account(name, context.base_url))

        def without_key(known: Contexts) -> Contexts:
            return known.put(name, replace(known.get(name), api_key=None, in_keychain=False))

        self.change(without_key)
        return context

    # The file

    def _text(self) -> Secret | None:
        try:
            # Not blocking: a pipe of that name would have us wait for its writer.
            handle = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ConfigurationError(f"{self.path} cannot be read: {error.strerror}") from None
        with os.fdopen(handle, "rb") as file:
            self._check_file(os.fstat(handle))
            text = _decoded(file.read(_LARGEST + 1))
        if text is None:
            raise ConfigurationError(f"{self.path} is broken: it is no text in UTF-8 of a sane size; mend or remove it")
        return text

    def _check_file(self, facts: os.stat_result) -> None:
        if not stat.S_ISREG(facts.st_mode):
            raise ConfigurationError(f"{self.path} is no file")
        if facts.st_uid != os.geteuid():
            raise ConfigurationError(
                f"{self.path} belongs to another user, and is not read: it decides who gets your keys"
            )
        if facts.st_mode & 0o077:
            raise ConfigurationError(
                f"{self.path} holds keys, and others can read or write it: chmod 600 {self.path} "
                "(and make new keys, if somebody may have read them)"
            )
        directory = self.path.parent
        above = directory.stat()
        if above.st_uid != os.geteuid() or above.st_mode & 0o022:
            raise ConfigurationError(
                f"others can put files into {directory}: chmod 700 {directory}, and make sure it is yours"
            )

    def _make_directory(self) -> None:
        directory = self.path.parent
        try:
            if not directory.exists():
                # With sudo the home may be another user's, who could no longer use a directory of root's in it.
                there = next(each for each in directory.parents if each.exists())
                if there.stat().st_uid != os.geteuid() and there != Path("/"):
                    raise ConfigurationError(f"{directory} is not made, because {there} belongs to another user")
                directory.parent.mkdir(parents=True, exist_ok=True)
                directory.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(f"{directory} cannot be made: {error.strerror}") from None

    @contextmanager
    def _locked(self) -> Iterator[None]:
        place = self.path.with_name(f".{self.path.name}.lock")
        try:
            handle = os.open(place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise ConfigurationError(f"{self.path.parent} cannot be written to: {error.strerror}") from None
        try:
            _take(handle, place)
            yield
        finally:
            os.close(handle)


def account(name: str, base_url: str) -> str:
    """The name of a key in the keychain. The URL is part of it: whoever changes it in the file gets no key."""
    return f"{name} at {base_url}"


@dataclass(frozen=True, slots=True)
class Remembered:
    """The context of a platform. `used`: whether it is the one that is used when nothing else is said."""

    name: str
    used: bool


def remember_platform(
    *, base_url: str, data_dir: Path, api_key: Secret | None, project_id: str | None, file: ContextFile | None = None
) -> Remembered | None:
    """Write the context of a platform that is up here (see `config.with_platform`).

    None when its key is not known. Raises ConfigurationError.
    """
    chosen: str | None = None

    def decide(known: Contexts) -> Contexts:
        nonlocal chosen
        contexts, chosen = with_platform(
            known,
            data_dir=str(data_dir),
            base_url=base_url,
            api_key=api_key,
            project_id=project_id,
            is_there=_is_there,
        )
        return contexts

    known = (file or ContextFile()).change(decide)
    return None if chosen is None else Remembered(chosen, used=chosen == (known.current or LOCAL))


def _is_there(path: str) -> bool:
    """What cannot be looked at may well be there."""
    try:
        Path(path).stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


# What touches text with keys in it answers what failed instead of raising: frames of an error would hold the text.


def _decoded(content: bytes) -> Secret | None:
    try:
        return Secret(content.decode()) if len(content) <= _LARGEST else None
    except UnicodeDecodeError:
        return None


def _written(path: Path, text: Secret) -> str:
    """Why it was not written; empty when it was."""
    try:
        write_atomic(path, text.reveal().encode())
    except OSError as error:
        return error.strerror or type(error).__name__
    return ""


def _take(handle: int, place: Path) -> None:
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise ConfigurationError(f"another process holds {place}; end it, and try again") from None
            time.sleep(0.01)
        else:
            return
