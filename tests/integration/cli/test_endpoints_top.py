"""`lamp endpoints top` against a server that tells what a platform would."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from lamplighter.cli.commands import lamp
from support.scripted import Asked, Scripted, answer
from support.waiting import wait_for

PATH = "/lamplighter/v1/endpoints/top"


class Platform:
    """Bytes and connections grow with each look."""

    def __init__(self) -> None:
        self.looks: list[Asked] = []
        self.status = 200
        self.body: Any = None

    def step(self, connection: socket.socket, asked: Asked) -> None:
        self.looks.append(asked)
        turn = len(self.looks)
        busy = self.endpoint("ep-busy", state="active", connections=turn, bytes_in=1000 * turn, bytes_out=5000 * turn)
        known = {"endpoints": [self.endpoint("ep-quiet", state="idle"), busy]}
        connection.sendall(answer(self.status, known if self.body is None else self.body))

    def endpoint(self, id_: str, **more: Any) -> dict[str, Any]:
        common = {"id": id_, "project_id": f"project-of-{id_}", "branch_id": "br-1", "name": None, "connections": 0}
        totals = {"accepted": 1, "bytes_in": 0, "bytes_out": 0, "wakes": 2, "last_wake_ms": 41}
        times = {"started_at": "2026-01-31T11:00:00Z", "last_active": None, "suspended_at": None}
        return {**common, **totals, **times, **more}


@pytest.fixture
def platform() -> Platform:
    return Platform()


@pytest.fixture
def server(platform: Platform) -> Iterator[Scripted]:
    with Scripted(platform.step) as served:
        yield served


def environment(url: str, place: Path) -> dict[str, str]:
    return {"NEON_API_KEY": "napi_test", "NEON_API_HOST": url, "XDG_CONFIG_HOME": str(place)}


def top(url: str, place: Path, *words: str, status: int = 0) -> Result:
    words = ("endpoints", "top", "--interval", "0.1", *words)
    result = CliRunner().invoke(lamp, words, env={**environment(url, place), "LAMP_CONTEXT": None})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == status, result.output
    return result


def test_the_table_is_printed_once_where_it_cannot_be_refreshed(
    server: Scripted, platform: Platform, tmp_path: Path
) -> None:
    """Two looks with the key make the rates; the busiest comes first."""
    out = top(server.url, tmp_path).stdout.splitlines()
    assert out[0].split()[:3] == ["ENDPOINT", "STATE", "CONNS"]
    assert out[1].split()[:3] == ["ep-busy", "active", "2"]
    assert out[2].split()[:3] == ["ep-quiet", "idle", "0"]
    assert [look.target for look in platform.looks] == [PATH, PATH]
    assert {look.headers["authorization"] for look in platform.looks} == {"Bearer napi_test"}


def test_json_has_all_fields_and_rates(server: Scripted, tmp_path: Path) -> None:
    busy, quiet = json.loads(top(server.url, tmp_path, "--output", "json").stdout)
    assert (busy["id"], busy["connections"], busy["wakes"], busy["last_wake_ms"]) == ("ep-busy", 2, 2, 41)
    assert busy["bytes_out_per_second"] == pytest.approx(5 * busy["bytes_in_per_second"])
    assert 0 < busy["bytes_in_per_second"] <= 1000 / 0.1
    assert quiet["bytes_in_per_second"] == 0


def test_csv_has_the_same_columns_always(server: Scripted, platform: Platform, tmp_path: Path) -> None:
    full = list(csv.reader(io.StringIO(top(server.url, tmp_path, "--output", "csv").stdout)))
    platform.body = {"endpoints": []}
    empty = list(csv.reader(io.StringIO(top(server.url, tmp_path, "--output", "csv").stdout)))
    assert full[0] == empty[0]
    assert len(full) == 3


def test_one_project_alone(server: Scripted, tmp_path: Path) -> None:
    found = json.loads(top(server.url, tmp_path, "--project-id", "project-of-ep-quiet", "-o", "json").stdout)
    assert [one["id"] for one in found] == ["ep-quiet"]


def test_no_endpoints(server: Scripted, platform: Platform, tmp_path: Path) -> None:
    platform.body = {"endpoints": []}
    result = top(server.url, tmp_path)
    assert (result.stdout, result.stderr) == ("", "There are no endpoints.\n")


@pytest.mark.parametrize("url", ["https://console.neon.tech/api/v2", "https://api.neon.tech"])
def test_neons_cloud_is_not_even_asked(url: str, tmp_path: Path) -> None:
    assert "only Lamplighter does" in top(url, tmp_path, status=3).stderr


@pytest.mark.parametrize("status", [404, 405, 501])
def test_another_server_does_not_tell(server: Scripted, platform: Platform, tmp_path: Path, status: int) -> None:
    platform.status, platform.body = status, {"code": "", "message": "no such route"}
    assert "only Lamplighter does" in top(server.url, tmp_path, status=3).stderr


def test_an_answer_of_another_kind_is_told(server: Scripted, platform: Platform, tmp_path: Path) -> None:
    platform.body = b"<html>"
    assert PATH in top(server.url, tmp_path, status=1).stderr


def test_a_wrong_key_is_told_as_elsewhere(server: Scripted, platform: Platform, tmp_path: Path) -> None:
    platform.status, platform.body = 401, {"code": "", "message": "authentication required"}
    assert "authentication required" in top(server.url, tmp_path, status=5).stderr


def test_a_terminal_is_refreshed_until_ctrl_c(server: Scripted, platform: Platform, tmp_path: Path) -> None:
    """It outlasts a server that does not answer for a while, and Ctrl-C is no failure."""
    ours, theirs = pty.openpty()
    os.set_blocking(ours, False)
    env = {**os.environ, **environment(server.url, tmp_path), "TERM": "xterm", "COLUMNS": "120", "LINES": "20"}
    command = [sys.executable, "-m", "lamplighter", "endpoints", "top", "--interval", "0.1"]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=env, start_new_session=True)
    os.close(theirs)
    seen = bytearray()

    def shows(pattern: bytes) -> bool:
        try:
            seen.extend(os.read(ours, 65536))
        except (BlockingIOError, OSError):
            return False
        return re.search(pattern, seen) is not None

    try:
        wait_for(lambda: shows(rb"ep-busy +active +[3-9]"), what="the third look")
        platform.status = 500
        wait_for(lambda: shows(rb"\(no answer"), what="the note of a server that fails", seconds=60)
        platform.status = 200
        seen.clear()
        wait_for(lambda: shows(rb"connections, in [^\r]*/s\s*\r"), what="the next frame", seconds=60)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        assert not shows(rb"Traceback")
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        os.close(ours)
