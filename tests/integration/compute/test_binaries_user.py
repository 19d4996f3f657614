"""Who Postgres runs as."""

from __future__ import annotations

import os
import pwd
import subprocess
from pathlib import Path

import pytest

from lamplighter.compute.errors import SystemUserError
from lamplighter.compute.extensions import shortcomings
from lamplighter.compute.user import current_or_system_user, drop_prefix, ensure_system_user, first_blocked


def test_the_user_is_never_root() -> None:
    """An ordinary user is itself; root gets the system user, the same one each time."""
    user = current_or_system_user()
    assert user.uid != 0
    assert user == current_or_system_user()
    assert user.uid == os.geteuid() or pwd.getpwuid(user.uid).pw_name == "lamplighter"


@pytest.mark.root
def test_privileges_are_dropped_for_good() -> None:
    """The program has the user's ids, no group of root's, no capability, and no way to gain one."""
    user = ensure_system_user()
    command = [*drop_prefix(user), "cat", "/proc/self/status"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    status = dict(line.split(":\t", 1) for line in printed.splitlines() if ":\t" in line)
    assert set(status["Uid"].split()) == {str(user.uid)}
    assert set(status["Gid"].split()) == {str(user.gid)}
    assert status["Groups"].strip() == ""
    assert {int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {0}
    assert status["NoNewPrivs"] == "1"


@pytest.mark.root
def test_a_user_that_cannot_be_made_is_told() -> None:
    with pytest.raises(SystemUserError, match="could not be made"):
        ensure_system_user("no:such:name")


@pytest.mark.root
def test_a_root_by_another_name_is_refused() -> None:
    with pytest.raises(SystemUserError, match="is root"):
        ensure_system_user("root")


def test_nobody_to_drop_to_is_no_prefix() -> None:
    assert drop_prefix(None) == ()


def test_the_first_closed_directory_is_named(place: Path) -> None:
    (place / "open" / "closed" / "within").mkdir(parents=True)
    (place / "open" / "closed").chmod(0o700)
    assert first_blocked(place / "open" / "closed" / "within") == place / "open" / "closed"
    assert first_blocked(place / "open") is None


def test_a_complete_build_has_no_shortcomings(postgres17) -> None:
    """On a machine with time zones, 17 has TLS and every extension of the allow-list."""
    assert shortcomings(postgres17) == ()
