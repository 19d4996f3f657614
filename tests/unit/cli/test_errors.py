"""Which errors are told in a line, and which are faults of ours."""

from __future__ import annotations

import errno
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from lamplighter.api.errors import Unavailable
from lamplighter.cli.errors import FAILED, Failure, failure_of
from lamplighter.compute.errors import UnsupportedMajor
from lamplighter.control.errors import CatalogTooNew
from lamplighter.platform.errors import AlreadyRunning, PortBusy
from lamplighter.storage.errors import DriverUnavailable


@pytest.mark.parametrize(
    "error",
    [
        AlreadyRunning(Path("/data"), None),
        PortBusy("127.0.0.1", 7432, "in use"),
        UnsupportedMajor(9),
        DriverUnavailable("btrfs", "the file system is ext4"),
        CatalogTooNew(found=9, known=2),
        Unavailable("no Postgres"),
    ],
)
def test_our_errors_are_told_as_they_are(error: Exception) -> None:
    failure = failure_of(error)
    assert failure is not None
    assert failure.message == str(error)
    assert failure.exit_code == FAILED


def test_an_error_of_the_host_names_the_path() -> None:
    failure = failure_of(OSError(errno.ENOSPC, "No space left on device", "/data/x"))
    assert failure is not None
    assert failure.message == "/data/x: No space left on device"


def test_a_forbidden_path_comes_with_a_hint() -> None:
    failure = failure_of(PermissionError(errno.EACCES, "Permission denied", "/data"))
    assert failure is not None
    assert "--data-dir" in failure.hint


def test_the_catalog_is_named_when_it_cannot_be_reached() -> None:
    failure = failure_of(psycopg.OperationalError("connection refused\n"))
    assert failure is not None
    assert failure.message == "the catalog cannot be used: connection refused"


def test_an_address_that_cannot_be_read_is_not_repeated() -> None:
    """It may hold a password."""
    with pytest.raises(psycopg.ProgrammingError) as caught:
        conninfo_to_dict("postgresql//me:sekret@host/db")
    assert "sekret" in str(caught.value)
    failure = failure_of(caught.value)
    assert failure is not None
    assert "sekret" not in failure.message + failure.hint


def test_a_missing_package_is_one_of_the_platform() -> None:
    failure = failure_of(ModuleNotFoundError("x", name="uvicorn"))
    assert failure is not None
    assert "lamplighter[platform]" in failure.hint


@pytest.mark.parametrize(
    "error", [KeyError("x"), AssertionError(), TypeError(), ModuleNotFoundError("x", name="lamplighter.nothing")]
)
def test_a_fault_of_ours_is_seen_whole(error: Exception) -> None:
    assert failure_of(error) is None


def test_a_failure_is_itself() -> None:
    failure = Failure("x", status=3)
    assert failure_of(failure) is failure
