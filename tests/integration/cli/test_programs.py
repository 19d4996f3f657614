"""Which `psql` and `pg_dump` are taken."""

from __future__ import annotations

from pathlib import Path

import pytest

from lamplighter.cli.errors import Failure
from lamplighter.cli.programs import find_program


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only directory of the PATH; nothing was installed by the platform."""
    bin_dir = tmp_path / "bin"
    bin_dir.mkdir()
    monkeypatch.setenv("PATH", str(bin_dir))
    monkeypatch.setenv("LAMP_CACHE_DIR", str(tmp_path / "cache"))
    return bin_dir


def put(place: Path, name: str, says: str) -> Path:
    path = place / name
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)
    return path


def test_what_is_on_the_path_is_taken(place: Path) -> None:
    program = put(place, "psql", "anything")
    assert find_program("psql").path == str(program)


def test_an_old_one_is_not(place: Path) -> None:
    """pg_dump refuses servers that are newer than it."""
    put(place, "pg_dump", "pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)")
    assert find_program("pg_dump", least=15)
    with pytest.raises(Failure, match=r"pg_dump of PostgreSQL 17 or later is not on the PATH, only of 15") as caught:
        find_program("pg_dump", least=17)
    assert "lamp postgres install 17" in caught.value.hint


def test_none_at_all_says_how_to_get_one(place: Path) -> None:
    with pytest.raises(Failure, match="psql is not on the PATH") as caught:
        find_program("psql")
    assert "lamp postgres install" in caught.value.hint
