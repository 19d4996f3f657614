"""`lamp` as a process: exit statuses, errors for programs, pipes, interrupts, terminals, completion."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from support.lamp import wait_for

from .conftest import Cli

LAMP = [sys.executable, "-m", "lamplighter"]
#: With the blank, which is printed when the answer is being read.
QUESTION = b"Go on? [y/N]: "
CTRL_C = "\x03"


class Scripted(ThreadingHTTPServer):
    """Answers every request with what `answer` says; holds it back until `open` is set."""

    daemon_threads = True
    answer: tuple[int, dict[str, str], bytes] = (200, {}, b"{}")
    #: Of a DELETE, where that is another.
    deleted: bytes | None = None

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.open = threading.Event()
        self.open.set()
        self.requests: list[str] = []

    @property
    def env(self) -> dict[str, str]:
        return {"NEON_API_KEY": "sekret-key", "NEON_API_HOST": f"http://127.0.0.1:{self.server_port}"}


class Handler(BaseHTTPRequestHandler):
    server: Scripted

    def do_GET(self) -> None:
        self.server.requests.append(f"{self.command} {self.path}")
        self.server.open.wait(60)
        status, headers, body = self.server.answer
        body = self.server.deleted if self.command == "DELETE" and self.server.deleted is not None else body
        self.send_response(status)
        for name, value in {"content-type": "application/json", "content-length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815 - http.server's names
    do_DELETE = do_GET  # noqa: N815 - the same

    def log_message(self, *_: Any) -> None:
        return


@pytest.fixture
def server() -> Iterator[Scripted]:
    scripted = Scripted()
    thread = threading.Thread(target=scripted.serve_forever)
    thread.start()
    try:
        yield scripted
    finally:
        scripted.open.set()
        scripted.shutdown()
        thread.join()
        scripted.server_close()


@pytest.fixture
def nowhere(tmp_path: Path) -> dict[str, str]:
    """An environment that names no server."""
    return {"XDG_CONFIG_HOME": str(tmp_path), "NEON_API_KEY": "", "NEON_API_HOST": "", "LAMP_CONTEXT": ""}


@pytest.mark.parametrize(
    ("answered", "status"), [(401, 5), (403, 5), (404, 3), (409, 4), (423, 4), (429, 6), (500, 1), (503, 1), (400, 1)]
)
def test_what_a_server_refuses_has_its_exit_status(cli: Cli, server: Scripted, answered: int, status: int) -> None:
    """And an error on standard error, as JSON for programs."""
    refusal = json.dumps({"code": "SOME", "message": "no\x1b[2J"}).encode()
    # Longer than the SDK waits: it is told at once.
    server.answer = (answered, {"retry-after": "300"}, refusal)
    ran = cli("api", "/regions", env=server.env)
    assert (ran.status, ran.out) == (status, "")
    assert ran.err.startswith("Error: no\\x1b[2J")
    assert "\x1b" not in ran.err
    ran = cli("regions", "-o", "json", "--org-id", "org-x", env=server.env)
    assert (ran.status, ran.out) == (status, "")
    facts = json.loads(ran.err)["error"]
    assert (facts["status"], facts["code"], facts["exit_code"]) == (answered, "SOME", status)
    assert "sekret" not in ran.err


def test_no_server_is_running(cli: Cli) -> None:
    """Said at once, without trying again: the SDK would go on for longer than this waits."""
    ran = cli("me", env={"NEON_API_KEY": "k", "NEON_API_HOST": "http://127.0.0.1:9"}, seconds=8)
    assert ran.status == 1
    assert "no server runs at http://127.0.0.1:9/api/v2" in ran.err
    assert "`lamp up` starts one here" in ran.err


def test_no_key_is_a_matter_of_authentication(cli: Cli, nowhere: dict[str, str]) -> None:
    ran = cli("me", env=nowhere)
    assert ran.status == 5
    assert "NEON_API_KEY" in ran.err
    ran = cli("me", "-o", "json", env=nowhere)
    assert json.loads(ran.err)["error"]["exit_code"] == 5


def test_a_wrong_usage_is_json_too(cli: Cli) -> None:
    ran = cli("me", "--no-such-option", "-o", "json")
    assert ran.status == 2
    assert "--no-such-option" in json.loads(ran.err)["error"]["message"]
    ran = cli("me", "--no-such-option")
    assert ran.status == 2
    assert "Usage: lamp me" in ran.err


def test_ctrl_c_ends_it_quietly_with_130(server: Scripted) -> None:
    server.open.clear()
    process = subprocess.Popen(
        [*LAMP, "regions", "--org-id", "x"],
        env={**os.environ, **server.env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        wait_for(lambda: server.requests, what="the request")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert (out, err.strip()) == ("", "")


@pytest.mark.parametrize("words", ["api --list", "api listProjects -o yaml", "api listProjects"])
def test_a_broken_pipe_is_quiet(server: Scripted, words: str) -> None:
    projects = [{"id": f"calm-sun-{number:08}", "name": "x" * 100} for number in range(2000)]
    server.answer = (200, {}, json.dumps({"projects": projects}, indent=1).encode())
    command = f"{' '.join(LAMP)} {words} | head -n 1"
    done = subprocess.run(
        ["sh", "-c", command], env={**os.environ, **server.env}, capture_output=True, text=True, check=True
    )
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == ""


def test_the_answer_is_printed_as_it_came(cli: Cli, server: Scripted) -> None:
    """With blanks, numbers and order as the server wrote them."""
    server.answer = (200, {"x-thing": "a"}, b'{"b" :1.50,\n "a": "\\u001b", "c": 12345678901234567890}')
    ran = cli("api", "/regions", env=server.env)
    assert ran.out == '{"b" :1.50,\n "a": "\\u001b", "c": 12345678901234567890}\n'
    ran = cli("api", "/regions", "--include", env=server.env)
    assert ran.out.startswith("HTTP 200\n")
    assert "x-thing: a\n" in ran.out


def test_what_is_no_json_is_printed_too(cli: Cli, server: Scripted) -> None:
    server.answer = (200, {"content-type": "text/plain"}, b"hello")
    assert cli("api", "/from/the/future", env=server.env).out == "hello"


def test_a_dry_run_sends_nothing_that_changes(cli: Cli, server: Scripted) -> None:
    ran = cli("api", "createProject", "-F", "project.name=x", "--dry-run", env=server.env)
    assert ran.status == 0
    shown = json.loads(ran.out)["requests"]
    assert shown == [
        {"method": "POST", "url": f"{server.env['NEON_API_HOST']}/api/v2/projects", "body": {"project": {"name": "x"}}}
    ]
    assert server.requests == []


def test_a_body_from_a_file_or_a_pipe(server: Scripted, tmp_path: Path) -> None:
    path = tmp_path / "body.json"
    path.write_text('{"project": {"name": "x"}}')
    for words in (["--input", str(path)], ["--input", "-"], ["--data", f"@{path}"], ["--data", "-"]):
        done = subprocess.run(
            [*LAMP, "api", "/projects", "--dry-run", *words],
            env={**os.environ, **server.env},
            input=path.read_text(),
            capture_output=True,
            text=True,
            check=True,
        )
        assert json.loads(done.stdout)["requests"][0]["body"] == {"project": {"name": "x"}}


def on_a_terminal(words: list[str], env: dict[str, str], *, typed: str = "", columns: int = 60) -> tuple[int, str]:
    """Run it with a terminal for all three streams; answers its exit status and what the terminal was given."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        # In a session of its own, so that what is typed reaches it, a Ctrl-C included.
        ["setsid", "--ctty", *LAMP, *words],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, **env, "COLUMNS": str(columns), "TERM": "xterm"},
    )
    os.close(theirs)
    seen = b""
    asked = False
    with process:
        try:
            while True:
                quiet = not select.select([ours], [], [], 5)[0]
                if not quiet and not (piece := os.read(ours, 65536)):
                    break
                seen += b"" if quiet else piece
                # A Ctrl-C between readline's prompt and its wait for a key is only seen at the next key: type it again.
                if typed and QUESTION in seen and (not asked or quiet):
                    asked = True
                    os.write(ours, typed.encode())
        except OSError:  # so a terminal ends when its last process has gone
            pass
        finally:
            os.close(ours)
    return process.returncode, seen.decode()


def test_a_terminal_gets_a_table_that_fits(server: Scripted) -> None:
    """In colour unless NO_COLOR says otherwise, and with nothing of the server's that it would obey."""
    region = {"region_id": "aws-x", "name": "evil\x1b[2J" + "n" * 100, "default": True, "geo_lat": "", "geo_long": ""}
    server.answer = (200, {}, json.dumps({"regions": [region]}).encode())
    status, seen = on_a_terminal(["regions", "--org-id", "x"], {**server.env, "NO_COLOR": "1"})
    assert status == 0
    assert "\x1b" not in seen
    assert "evil\\x1b[2J" in seen
    assert max(map(len, seen.splitlines())) <= 60
    _, seen = on_a_terminal(["regions", "--org-id", "x"], {**server.env, "NO_COLOR": ""})
    assert seen.startswith("\x1b[1mID")
    assert seen.count("\x1b") == 2


def test_json_on_a_terminal_is_indented_and_harmless(server: Scripted) -> None:
    server.answer = (200, {}, '{"a":"\x9b2J"}'.encode())
    status, seen = on_a_terminal(["api", "/regions"], server.env)
    assert status == 0
    assert seen.splitlines() == ["{", '  "a": "\\u009b2J"', "}"]


@pytest.mark.parametrize(("typed", "status", "sent"), [("y\n", 0, 1), ("n\n", 1, 0), ("\n", 1, 0), (CTRL_C, 130, 0)])
def test_what_cannot_be_undone_is_asked_for(server: Scripted, typed: str, status: int, sent: int) -> None:
    env = {**server.env, "NO_COLOR": "1"}
    by = {"id": "u", "name": "me", "image": ""}
    key = {"id": 7, "name": "ci\x1b[2J", "created_at": "2026-01-31T12:00:00Z", "last_used_at": None}
    server.answer = (200, {}, json.dumps([key | {"created_by": by, "last_used_from_addr": ""}]).encode())
    server.deleted = json.dumps(key | {"created_by": "u", "last_used_from_addr": "", "revoked": True}).encode()
    ended, seen = on_a_terminal(["api-keys", "revoke", "7"], env, typed=typed, columns=200)
    deleted = [request for request in server.requests if request.startswith("DELETE")]
    assert len(deleted) == sent
    assert "ci\\x1b[2J" in seen
    assert "Go on?" in seen
    assert ended == status


def test_nobody_to_ask_is_a_refusal(cli: Cli, server: Scripted) -> None:
    """At once, not after a question that nobody reads."""
    server.answer = (200, {}, b"[]")
    ran = cli("api-keys", "revoke", "7", env=server.env)
    assert ran.status == 2
    assert "--yes" in ran.err
    assert not [request for request in server.requests if request.startswith("DELETE")]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_a_script_for_each_shell(cli: Cli, shell: str) -> None:
    ran = cli("completion", shell)
    assert ran.status == 0
    assert "_LAMP_COMPLETE" in ran.out


def test_bash_completes_commands_and_options() -> None:
    def completed(*words: str) -> list[str]:
        env = {"_LAMP_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)}
        done = subprocess.run(
            [sys.executable, "-c", "import sys; sys.argv = ['lamp']; from lamplighter.cli.main import main; main()"],
            env={**os.environ, **env},
            capture_output=True,
            text=True,
            check=False,
        )
        return [line.partition(",")[2] for line in done.stdout.splitlines()]

    assert completed("lamp", "oper") == ["operations"]
    assert completed("lamp", "operations", "wa") == ["wait"]
    assert "--output" in completed("lamp", "regions", "--")
    assert completed("lamp", "regions", "-o", "j") == ["json"]


def test_no_help_loads_the_sdk() -> None:
    """So that it is there at once: a command's module imports little, and the SDK when it is used."""
    script = (
        "import sys, click\n"
        "from lamplighter.cli.commands import COMMANDS, lamp\n"
        "for name in COMMANDS: lamp.get_command(click.Context(lamp), name)\n"
        "print('\\n'.join(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    heavy = {"pydantic", "rich", "httpx2", "yaml", "psycopg", "asyncio", "anyio", "ssl", "lamplighter.api.operations"}
    assert "lamplighter.cli.projects" in loaded
    assert not loaded & heavy
    assert not {name for name in loaded if name.startswith("lamplighter.client._")}
