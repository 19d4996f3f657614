"""What the platform finds below it when it starts."""

from __future__ import annotations

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from lamplighter.platform.machine import usable_pooler


def put_pgbouncer(folder: Path, version: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """First in the `PATH`."""
    program = folder / "pgbouncer"
    program.write_text(f"#!/bin/sh\necho 'PgBouncer {version}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    return program


def test_a_pgbouncer_that_is_too_old_is_not_used_and_the_log_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = put_pgbouncer(tmp_path, "1.16.1", monkeypatch)
    with capture_logs() as logs:
        assert usable_pooler() is None
    why = f"{program} is version 1.16.1, and 1.17.0 or later is needed"
    assert logs == [{"event": "pooler.none", "log_level": "warning", "why": why}]


def test_a_pgbouncer_that_will_do_is_used_without_a_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = put_pgbouncer(tmp_path, "1.24.1", monkeypatch)
    with capture_logs() as logs:
        found = usable_pooler()
    assert found is not None
    assert (found.path, logs) == (program, [])
