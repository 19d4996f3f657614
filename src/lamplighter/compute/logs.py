"""The log of a postmaster: read its end, say why it died, and keep it small.

The postmaster appends to a plain file, which goes on without us; what grows beyond the limit is copied to `.1` and the
file cut to nothing, which is safe because it was opened for appending. A line written between the two is lost.
"""

from __future__ import annotations

import os
import re
import shutil

from lamplighter.compute.places import Places

#: Each log and its predecessor.
LIMIT = 4 * 1024 * 1024
_TAIL = 8192
_LINES = 15
_FATAL = re.compile(r"(?:FATAL|PANIC): +(.*)")
_BAD_SETTING = re.compile(
    r"(?:invalid value for parameter|unrecognized configuration parameter|parameter .* requires|"
    r"is outside the valid range|syntax error in file|invalid .* for parameter|cannot be changed|"
    r"contains errors)"
)


def size(places: Places) -> int:
    """Where the next line will be; 0 without a log."""
    try:
        return places.log.stat().st_size
    except OSError:
        return 0


def read_end(places: Places, since: int = 0) -> str:
    """The last lines that were written after the offset `since`."""
    try:
        with places.log.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            # Shorter than before: it was cut meanwhile, and all of it is new.
            file.seek(max(since if since <= end else 0, end - _TAIL))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-_LINES:])


def cause(tail: str) -> str:
    """The last FATAL or PANIC that does not merely reject a client; empty if there is none."""
    found = [line for line in _FATAL.findall(tail) if not line.startswith(("the database system is", "terminating"))]
    return found[-1] if found else ""


def bad_settings(tail: str) -> list[str]:
    """What the log says about settings that Postgres did not take."""
    lines = [line.split("LOG: ")[-1].split("FATAL: ")[-1].strip() for line in tail.splitlines()]
    return [line for line in lines if _BAD_SETTING.search(line)]


def port_taken(tail: str) -> bool:
    """Whether the postmaster ended because somebody else listens on its port."""
    return "Address already in use" in tail or "could not create any TCP/IP sockets" in tail


def rotate(places: Places, limit: int = LIMIT) -> bool:
    """Cut a log that is too long. Returns whether it was."""
    if size(places) <= limit:
        return False
    shutil.copyfile(places.log, places.old_log)
    places.old_log.chmod(0o600)
    os.truncate(places.log, 0)
    return True
