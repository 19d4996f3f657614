"""Directories for tests of pools and probes, and who runs Postgres there."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lamplighter.compute.user import current_or_system_user
from lamplighter.storage import Owner, unmount_pool


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def data_owner() -> Owner | None:
    return Owner(*current_or_system_user()) if os.geteuid() == 0 else None


@pytest.fixture
def root() -> Iterator[Path]:
    """An empty data directory; a pool in it is unmounted at the end."""
    path = Path(tempfile.mkdtemp(prefix="lamp-st-"))
    path.chmod(0o711)
    yield path
    unmount_pool(path)
    shutil.rmtree(path)


@pytest.fixture
def seed(tmp_path: Path) -> Path:
    directory = tmp_path / "seed"
    (directory / "base/5").mkdir(parents=True)
    (directory / "pg_wal").mkdir()
    (directory / "PG_VERSION").write_text("17\n")
    (directory / "base/5/1259").write_bytes(b"a" * 2**20)
    return directory
