"""Keeps other programs of the same user away from a value: no core dumps, no debuggers, no inherited environment."""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Final

_PR_GET_DUMPABLE: Final = 3
_PR_SET_DUMPABLE: Final = 4

#: What programs that we run may see of our environment. Tokens are given by name, where somebody asked for that.
_ALLOWED: Final = frozenset(
    {
        "ALL_PROXY",
        "DBUS_SESSION_BUS_ADDRESS",
        "HOME",
        "HTTPS_PROXY",
        "HTTP_PROXY",
        "LANG",
        "LANGUAGE",
        "LOGNAME",
        "NO_PROXY",
        "PATH",
        "SHELL",
        "SSL_CERT_DIR",
        "SSL_CERT_FILE",
        "TERM",
        "TMPDIR",
        "TZ",
        "USER",
        "XDG_CACHE_HOME",
        "XDG_CONFIG_HOME",
        "XDG_DATA_HOME",
        "XDG_RUNTIME_DIR",
        "XDG_STATE_HOME",
        "all_proxy",
        "http_proxy",
        "https_proxy",
        "no_proxy",
    }
)
#: Never, whoever asks: the keys that this is about.
_NEVER: Final = frozenset({"NEON_API_KEY"})


def child_environment(environ: Mapping[str, str] | None = None, *, allow: tuple[str, ...] = ()) -> dict[str, str]:
    """The environment for a program that we run: an allow-list, locale settings, and the names in `allow`."""
    environ = os.environ if environ is None else environ
    wanted = (_ALLOWED | frozenset(allow)) - _NEVER
    return {name: value for name, value in environ.items() if name in wanted or name.startswith("LC_")}


def harden() -> None:
    """For good: no core dump of this process, and no ptrace by others of the same user. Best effort off Linux."""
    _limit_core()
    _set_dumpable(0)


@contextmanager
def hardened() -> Iterator[None]:
    """The same while a value is held; afterwards the process is as it was."""
    before, dumpable = resource.getrlimit(resource.RLIMIT_CORE), _prctl(_PR_GET_DUMPABLE, 0)
    harden()
    try:
        yield
    finally:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_CORE, before)
        if dumpable == 1:
            _set_dumpable(1)


def _limit_core() -> None:
    # The hard limit stays: lowering it could not be taken back, and children would have it too.
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def _set_dumpable(value: int) -> None:
    _prctl(_PR_SET_DUMPABLE, value)


def _prctl(option: int, value: int) -> int:
    """-1 where there is no prctl, as on macOS."""
    if not sys.platform.startswith("linux"):
        return -1
    return int(ctypes.CDLL(None).prctl(option, value, 0, 0, 0))
