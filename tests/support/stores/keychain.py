"""The real Secret Service: gnome-keyring on a D-Bus session of its own, with an unlocked keyring that nobody else has.

Needs Debian's gnome-keyring and dbus; as root they are installed when they are not there.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_NEEDED = {"gnome-keyring-daemon": "gnome-keyring", "dbus-run-session": "dbus", "secret-tool": "libsecret-tools"}
#: The keyring opens with the password that comes on the daemon's stdin. `cat` keeps the session until its stdin ends.
_SESSION = """
printf 'password\\n' | gnome-keyring-daemon --unlock --components=secrets >/dev/null || exit 1
echo "$DBUS_SESSION_BUS_ADDRESS"
exec cat
"""


def install() -> None:
    missing = [package for program, package in _NEEDED.items() if shutil.which(program) is None]
    if not missing:
        return
    assert os.geteuid() == 0, f"apt-get install {' '.join(missing)}"
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "update", "-qq"], ["apt-get", "install", "-y", "-qq", *missing]):
        subprocess.run(command, env=env, check=True, stdout=subprocess.DEVNULL, timeout=300)


@contextmanager
def secret_service(home: Path) -> Iterator[str]:
    """The address of its bus; its keyrings are files below `home`."""
    install()
    runtime = home / "run"
    runtime.mkdir(mode=0o700)
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "XDG_RUNTIME_DIR": str(runtime),
        "XDG_DATA_HOME": str(home / "data"),
        "XDG_CACHE_HOME": str(home / "cache"),
    }
    process = subprocess.Popen(
        ["dbus-run-session", "--", "sh", "-c", _SESSION],
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        address = process.stdout.readline().strip()
        assert address.startswith("unix:"), "there is no Secret Service"
        yield address
    finally:
        process.stdin.close()
        process.stdout.close()
        try:
            process.wait(20)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
