"""`lamp login`, `logout`, `use` and `context`: keys come in and stay unseen, and which server is talked to is clear."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from lamplighter.client.contexts import ContextFile
from support.lamp import Lamp

from .conftest import Cli, Ran

CONTEXT_FIELDS = {"name", "base_url", "key", "current", "org_id", "project_id", "data_dir"}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty configuration directory, for the commands too."""
    place = tmp_path / "config"
    place.mkdir()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(place))
    return place


@pytest.fixture
def file(home: Path) -> ContextFile:
    return ContextFile()


def login(*arguments: str, key: str = "", **env: str) -> Ran:
    """`lamp login ARGUMENTS --key-stdin < key`."""
    done = subprocess.run(
        [sys.executable, "-m", "lamplighter", "login", *arguments, "--key-stdin"],
        input=key + "\n",
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **env},
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert not key or key not in done.stdout + done.stderr
    return Ran(done.returncode, done.stdout, done.stderr)


class Recorder(BaseHTTPRequestHandler):
    """Answers everything with the page of somebody else's web site, and keeps what it was asked."""

    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(f"{self.path} {self.headers.get('authorization', '')}")
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.end_headers()
        self.wfile.write(b"<html>Hello</html>")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def site() -> Iterator[tuple[str, list[str]]]:
    """A web server that is no Neon: its URL, and what it was asked."""
    handler = type("Handler", (Recorder,), {"asked": []})
    server = HTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", handler.asked
    server.shutdown()
    thread.join()
    server.server_close()


_DRAWER = """
import json, os, pathlib
from keyring.backend import KeyringBackend

class Drawer(KeyringBackend):
    priority = 5
    file = pathlib.Path(os.environ["DRAWER"])

    def _read(self):
        return json.loads(self.file.read_text()) if self.file.exists() else {}

    def get_password(self, service, username):
        return self._read().get(f"{service}: {username}")

    def set_password(self, service, username, password):
        self.file.write_text(json.dumps({**self._read(), f"{service}: {username}": password}))

    def delete_password(self, service, username):
        self.file.write_text(json.dumps({k: v for k, v in self._read().items() if k != f"{service}: {username}"}))
"""


@pytest.fixture
def drawer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A keychain for the commands, by keyring's own way to name one; what it holds is in this file."""
    (tmp_path / "drawers.py").write_text(_DRAWER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "drawers.Drawer")
    monkeypatch.setenv("DRAWER", str(tmp_path / "drawer.json"))
    return tmp_path / "drawer.json"


class TestLogin:
    def test_a_key_is_proved_and_kept_and_used(self, cli: Cli, lamp: Lamp, file: ContextFile) -> None:
        """It says whose it is; the key is in the file of the user's alone, and in nothing that is printed."""
        ran = login("mine", "--api-host", lamp.url, key=lamp.key)
        assert ran.status == 0, ran.err
        email = lamp.call("GET", "/users/me")["email"]
        assert f"Logged in to {lamp.url} as {email} (personal key)." in ran.out
        assert str(file.path) in ran.out
        assert file.path.stat().st_mode & 0o777 == 0o600
        told = cli("context", "show", "--output", "json")
        assert json.loads(told.out) | {"name": "mine", "base_url": lamp.url, "key": "file"} == json.loads(told.out)
        used = cli("api", "/users/me", "--output", "json")
        assert json.loads(used.out)["email"] == email

    def test_it_is_read_from_a_file_descriptor(self, lamp: Lamp, file: ContextFile) -> None:
        ours, theirs = os.pipe()
        os.write(theirs, lamp.key.encode())
        os.close(theirs)
        command = [sys.executable, "-m", "lamplighter", "login", "--api-host", lamp.url, "--key-fd", str(ours)]
        done = subprocess.run(command, pass_fds=[ours], capture_output=True, text=True, timeout=60, check=False)
        os.close(ours)
        assert done.returncode == 0, done.stderr
        (context,) = file.read().named.values()
        assert context.api_key is not None
        assert context.api_key.reveal() == lamp.key

    def test_it_is_read_from_the_terminal_without_echo(self, lamp: Lamp, file: ContextFile) -> None:
        master, slave = pty.openpty()
        command = [sys.executable, "-m", "lamplighter", "login", "here", "--api-host", lamp.url]
        process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
        os.close(slave)
        shown = read_until(master, "API key for")
        os.write(master, lamp.key.encode() + b"\n")
        shown += read_until(master, "")
        assert process.wait(60) == 0, shown
        os.close(master)
        assert "Logged in to" in shown
        assert lamp.key not in shown
        assert "here" in file.read().named

    def test_without_a_terminal_it_does_not_ask(self, cli: Cli, lamp: Lamp, file: ContextFile) -> None:
        ran = cli("login", "--api-host", lamp.url)
        assert ran.status == 2
        assert "--key-stdin" in ran.err
        assert not file.path.exists()

    @pytest.mark.parametrize("option", ["--api-key", "--key", "--token"])
    def test_the_command_line_takes_no_key(self, cli: Cli, home: Path, option: str) -> None:
        """Others on the machine can read it there."""
        assert cli("login", option, "napi_x").status == 2

    @pytest.mark.parametrize("arguments", [("--api-host", "nonsense"), ("a/b",), ("--key-fd", "0")])
    def test_wrong_usage(self, home: Path, arguments: tuple[str, ...]) -> None:
        assert login(*arguments, key="napi_x").status == 2

    def test_a_wrong_key_is_not_kept(self, lamp: Lamp, file: ContextFile) -> None:
        ran = login("--api-host", lamp.url, key="napi_0123456789abcdef")
        assert ran.status == 5
        assert "does not know this key; nothing was kept" in ran.err
        assert not file.path.exists()

    @pytest.mark.parametrize("key", ["", "  ", "napi_a napi_b", "schl\u00fcssel"])
    def test_what_is_no_key_is_not_even_sent(self, key: str, site: tuple[str, list[str]], file: ContextFile) -> None:
        url, asked = site
        ran = login("--api-host", url, key=key)
        assert ran.status == 5
        assert ran.err.startswith("Error: the API key ")
        assert asked == []
        assert not file.path.exists()

    def test_a_server_that_is_no_neon_gets_nothing_kept(self, site: tuple[str, list[str]], file: ContextFile) -> None:
        url, asked = site
        ran = login("--api-host", url, key="napi_x")
        assert ran.status == 1
        assert asked == ["/api/v2/auth Bearer napi_x"]
        assert not file.path.exists()

    def test_http_to_another_machine_is_warned_of(self, lamp: Lamp, home: Path) -> None:
        """And not refused: it may be a network that one trusts."""
        url = lamp.url.replace("127.0.0.1", "0.0.0.0")
        assert f"Warning: {url} is not https" in login("--api-host", url, key=lamp.key).err
        assert "Warning" not in login("--api-host", lamp.url, key=lamp.key).err

    def test_an_organizations_key_says_so(self, lamp: Lamp, home: Path) -> None:
        (org,) = lamp.call("GET", "/users/me/organizations")["organizations"]
        key = lamp.call("POST", f"/organizations/{org['id']}/api_keys", {"key_name": "login"})["key"]
        ran = login("--api-host", lamp.url, "--output", "json", key=key)
        told = json.loads(ran.out)
        assert (told["account_id"], told["auth_method"], told["email"]) == (org["id"], "api_key_org", None)
        assert set(told) == CONTEXT_FIELDS | {"account_id", "auth_method", "email"}

    def test_a_name_that_another_server_has_is_not_taken(self, lamp: Lamp, cli: Cli, file: ContextFile) -> None:
        """Its key would be lost, and commands would talk to another server than before."""
        login("mine", "--api-host", lamp.url, key=lamp.key)
        before = file.path.read_text()
        ran = login("mine", "--api-host", "http://127.0.0.1:1", key="napi_x")
        assert ran.status == 4
        assert "lamp context remove mine" in ran.err
        assert file.path.read_text() == before

    def test_without_a_name_it_is_the_servers_context_or_its_host(self, lamp: Lamp, file: ContextFile) -> None:
        login("--api-host", lamp.url, key=lamp.key)
        (name,) = file.read().named
        assert name == lamp.url.partition("://")[2].partition("/")[0].replace(":", "-")
        login("mine", "--api-host", lamp.url, key=lamp.key)
        login("--api-host", lamp.url, "--project-id", "p-1", key=lamp.key)
        assert {each: one.project_id for each, one in file.read().named.items()} == {name: None, "mine": "p-1"}

    def test_a_name_is_enough_to_give_it_another_key(self, lamp: Lamp, cli: Cli, file: ContextFile) -> None:
        login("mine", "--api-host", lamp.url, "--org-id", "o-1", key=lamp.key)
        key = lamp.call("POST", "/api_keys", {"key_name": "another"})["key"]
        assert login("mine", key=key).status == 0
        context = file.read().get("mine")
        assert context.api_key is not None
        assert (context.api_key.reveal(), context.org_id) == (key, "o-1")


class TestKeychain:
    def test_a_key_is_kept_there_and_used_from_there(
        self, cli: Cli, lamp: Lamp, file: ContextFile, drawer: Path
    ) -> None:
        ran = login("mine", "--api-host", lamp.url, key=lamp.key)
        assert "in the keychain" in ran.out, ran.err
        assert lamp.key not in file.path.read_text()
        assert json.loads(drawer.read_text()) == {f"lamplighter: mine at {lamp.url}": lamp.key}
        assert json.loads(cli("context", "list", "--output", "json").out)[0]["key"] == "keychain"
        assert cli("api", "/users/me").status == 0

    def test_it_goes_with_the_context(self, cli: Cli, lamp: Lamp, file: ContextFile, drawer: Path) -> None:
        for command in (("logout", "mine"), ("context", "remove", "mine", "--yes")):
            assert login("mine", "--api-host", lamp.url, key=lamp.key).status == 0
            assert cli(*command).status == 0
            assert json.loads(drawer.read_text()) == {}

    def test_a_key_that_moves_to_the_file_leaves_it(self, lamp: Lamp, file: ContextFile, drawer: Path) -> None:
        login("mine", "--api-host", lamp.url, key=lamp.key)
        assert login("mine", "--store", "file", key=lamp.key).status == 0
        assert json.loads(drawer.read_text()) == {}
        assert file.read().get("mine").key_place == "file"

    @pytest.mark.parametrize("backend", ["keyring.backends.null.Keyring", "keyring.backends.fail.Keyring"])
    def test_one_that_keeps_nothing_is_none(
        self, backend: str, lamp: Lamp, file: ContextFile, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The file is used instead, unless the keychain was asked for."""
        monkeypatch.setenv("PYTHON_KEYRING_BACKEND", backend)
        ran = login("mine", "--api-host", lamp.url, "--store", "keychain", key=lamp.key)
        assert ran.status == 5
        assert "no keychain that keeps a secret" in ran.err
        assert not file.path.exists()
        assert login("mine", "--api-host", lamp.url, key=lamp.key).status == 0
        assert file.read().get("mine").key_place == "file"


@pytest.fixture
def two(file: ContextFile) -> ContextFile:
    """Two contexts, neither of which is chosen."""
    file.path.parent.mkdir(mode=0o700)
    fields = {"base_url": "http://127.0.0.1:1/api/v2", "api_key": "napi_one", "data_dir": "/d"}
    other = {"base_url": "https://console.neon.tech/api/v2", "api_key": "napi_two", "org_id": "o-1"}
    file.path.write_text(json.dumps({"contexts": {"local": fields, "neon": other}}))
    file.path.chmod(0o600)
    return file


class TestUse:
    def test_it_chooses(self, cli: Cli, two: ContextFile) -> None:
        ran = cli("use", "neon", "--project-id", "p-1")
        assert ran.out == "Commands now talk to https://console.neon.tech/api/v2 (context neon).\n"
        assert (two.read().current, two.read().get("neon").project_id) == ("neon", "p-1")
        assert cli("use", "neon", "--project-id", "", "--org-id", "o-2").status == 0
        assert (two.read().get("neon").project_id, two.read().get("neon").org_id) == (None, "o-2")
        assert cli("use", "--none").status == 0
        assert two.read().current is None

    def test_a_name_that_there_is_not(self, cli: Cli, two: ContextFile) -> None:
        ran = cli("use", "nion")
        assert ran.status == 3
        assert ran.err == "Error: there is no context 'nion'\nHint: there are: local, neon\n"
        assert two.read().current is None

    @pytest.mark.parametrize("arguments", [(), ("neon", "--none"), ("--none", "--org-id", "o")])
    def test_wrong_usage(self, cli: Cli, two: ContextFile, arguments: tuple[str, ...]) -> None:
        assert cli("use", *arguments).status == 2

    @pytest.mark.parametrize("variable", ["NEON_API_KEY", "NEON_API_HOST", "LAMP_CONTEXT"])
    def test_it_says_what_comes_before_the_choice(self, cli: Cli, two: ContextFile, variable: str) -> None:
        """Without the key."""
        ran = cli("use", "neon", env={variable: "napi_x"})
        assert ran.status == 0
        assert variable in ran.err
        assert "napi_x" not in ran.out + (ran.err if variable == "NEON_API_KEY" else "")


class TestContext:
    def test_all_are_listed_without_keys(self, cli: Cli, two: ContextFile) -> None:
        ran = cli("context")
        assert [line.split() for line in ran.out.splitlines()] == [
            ["NAME", "SERVER", "KEY", "DEFAULTS"],
            ["*", "local", "http://127.0.0.1:1/api/v2", "file", "-"],
            ["neon", "https://console.neon.tech/api/v2", "file", "o-1"],
        ]
        told = json.loads(cli("context", "list", "--output", "json").out)
        assert [set(one) for one in told] == [CONTEXT_FIELDS] * 2
        assert [(one["name"], one["current"]) for one in told] == [("local", True), ("neon", False)]
        assert "napi_" not in ran.out + json.dumps(told)

    def test_show_says_who_is_talked_to_and_why(self, cli: Cli, two: ContextFile) -> None:
        """By the same rules as the SDK."""
        for env, url, source in (
            ({}, "http://127.0.0.1:1/api/v2", "context local"),
            ({"LAMP_CONTEXT": "neon"}, "https://console.neon.tech/api/v2", "context neon"),
            (
                {"NEON_API_KEY": "napi_x", "NEON_API_HOST": "https://h.example"},
                "https://h.example/api/v2",
                "NEON_API_KEY",
            ),
        ):
            ran = cli("context", "show", "--output", "json", env=env)
            assert (json.loads(ran.out)["base_url"], json.loads(ran.out)["source"]) == (url, source)
            text = cli("context", "show", env=env)
            assert url in text.out
            assert "napi_" not in ran.out + text.out
        assert "https://console.neon.tech/api/v2" in cli("context", "show", "neon").out
        assert cli("context", "show", "nion").status == 3

    def test_show_without_any_says_what_to_do(self, cli: Cli, home: Path) -> None:
        ran = cli("context", "show")
        assert ran.status == 5
        assert "lamp login" in ran.err
        assert cli("context").status == 0

    def test_remove_asks(self, cli: Cli, two: ContextFile) -> None:
        """And where nobody can be asked, it does nothing without --yes."""
        ran = cli("context", "remove", "local")
        assert ran.status == 2
        assert "lamp up --new-key" in ran.err
        assert set(two.read().named) == {"local", "neon"}
        assert cli("context", "remove", "local", "--yes").status == 0
        assert set(two.read().named) == {"neon"}
        assert cli("context", "remove", "local", "--yes").status == 3

    def test_logout_leaves_the_context_without_its_key(self, cli: Cli, two: ContextFile) -> None:
        assert cli("logout", "neon").status == 0
        assert "napi_two" not in two.path.read_text()
        assert two.read().get("neon").org_id == "o-1"
        ran = cli("context", "show", env={"LAMP_CONTEXT": "neon"})
        assert ran.status == 5
        assert "lamp login neon" in ran.err
        assert cli("logout", "neon").status == 0
        assert cli("logout", "nion").status == 3
        assert cli("logout").out.startswith("Forgot the key of local ")

    @pytest.mark.parametrize(
        "command",
        [("context",), ("context", "show"), ("use", "neon"), ("logout",), ("context", "remove", "a", "--yes")],
    )
    def test_a_broken_file_is_named_and_left_alone(self, cli: Cli, two: ContextFile, command: tuple[str, ...]) -> None:
        two.path.write_text('{"contexts": {"a": "napi_x"}}')
        ran = cli(*command)
        assert ran.status == 5
        assert f"{two.path} is broken" in ran.err
        assert "napi_x" not in ran.err
        assert two.path.read_text() == '{"contexts": {"a": "napi_x"}}'

    @pytest.mark.parametrize("command", [("use", "neon"), ("context", "list"), ("context", "show"), ("logout",)])
    def test_it_is_quick(self, two: ContextFile, command: tuple[str, ...]) -> None:
        """Neither the models nor the HTTP client are loaded."""
        script = f"import sys; sys.argv = {['lamp', *command]!r}\nfrom lamplighter.cli.main import main\n"
        script += "try: main()\nfinally: print(*sys.modules, file=sys.stderr)"
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        assert not {"pydantic", "httpx2", "keyring", "rich", "asyncio"} & set(done.stderr.split())


def read_until(master: int, word: str) -> str:
    """What the terminal shows until it shows that; all of it for "". It is waited for a minute at most."""
    shown = ""
    while not word or word not in shown:
        ready, _, _ = select.select([master], [], [], 60)
        assert ready, shown
        try:
            shown += os.read(master, 65536).decode()
        except OSError:  # the other side is closed
            break
    return shown
