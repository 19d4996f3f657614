"""The file of named servers and its keys: who may read it, who writes it, and what is not lost."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from keyring.backend import KeyringBackend
from keyring.backends.chainer import ChainerBackend
from keyring.backends.fail import Keyring as Fail
from keyring.backends.null import Keyring as Null

from lamplighter.api.secret import Secret
from lamplighter.client import contexts
from lamplighter.client.config import Context, Contexts
from lamplighter.client.contexts import ContextFile, account, default_path, find_server, remember_platform
from lamplighter.client.errors import ConfigurationError
from lamplighter.client.keychain import open_keychain

from .conftest import Drawer

LOCAL = Context(base_url="http://127.0.0.1:7432/api/v2", api_key=Secret("napi_local"))
NEON = Context(base_url="https://console.neon.tech/api/v2", in_keychain=True)


@pytest.fixture
def file(config_home: Path) -> ContextFile:
    return ContextFile()


def put(file: ContextFile, name: str, context: Context) -> None:
    file.change(lambda known: known.put(name, context))


class TestFile:
    def test_without_a_file_there_are_no_contexts(self, file: ContextFile, config_home: Path) -> None:
        """And reading makes none."""
        assert file.read() == Contexts()
        assert list(config_home.iterdir()) == []

    def test_it_is_ours_alone(self, file: ContextFile, config_home: Path) -> None:
        """Whatever the umask."""
        before = os.umask(0)
        try:
            put(file, "local", LOCAL)
        finally:
            os.umask(before)
        assert file.path == config_home / "lamplighter" / "contexts.json"
        assert file.path.stat().st_mode & 0o777 == 0o600
        assert file.path.parent.stat().st_mode & 0o777 == 0o700
        assert file.read().named == {"local": LOCAL}

    @pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o644])
    def test_a_file_that_others_can_read_or_write_is_refused(self, file: ContextFile, mode: int) -> None:
        """And is not written over, which would make it look as if it had been private."""
        put(file, "local", LOCAL)
        file.path.chmod(mode)
        text = file.path.read_text()
        with pytest.raises(ConfigurationError, match=f"chmod 600 {file.path}"):
            file.read()
        with pytest.raises(ConfigurationError):
            put(file, "other", LOCAL)
        assert file.path.read_text() == text

    def test_a_directory_that_others_can_write_to_is_refused(self, file: ContextFile) -> None:
        put(file, "local", LOCAL)
        file.path.parent.chmod(0o777)
        with pytest.raises(ConfigurationError, match=f"chmod 700 {file.path.parent}"):
            file.read()

    @pytest.mark.root
    def test_a_file_of_another_user_is_refused(self, file: ContextFile) -> None:
        put(file, "local", LOCAL)
        os.chown(file.path, 65534, 65534)
        with pytest.raises(ConfigurationError, match="belongs to another user"):
            file.read()

    @pytest.mark.root
    def test_nothing_of_roots_is_put_into_another_users_home(self, config_home: Path) -> None:
        """As it would be with sudo, which may keep HOME."""
        os.chown(config_home, 65534, 65534)
        with pytest.raises(ConfigurationError, match="belongs to another user"):
            put(ContextFile(), "local", LOCAL)
        assert list(config_home.iterdir()) == []

    @pytest.mark.parametrize(
        "content",
        [b"", b"napi_sekret", b'{"contexts": {"a": {"api_key": "napi_sekret"}}}', b"\xff\xfe", b" " * 2_000_000],
    )
    def test_a_broken_file_is_named_and_never_written_over(self, file: ContextFile, content: bytes) -> None:
        put(file, "local", LOCAL)
        file.path.write_bytes(content)
        for act in (file.read, lambda: put(file, "other", LOCAL), lambda: find_server(environ={})):
            with pytest.raises(ConfigurationError) as caught:
                act()
            assert f"{file.path} is broken" in str(caught.value)
            assert shown(caught.value) == []
        assert file.path.read_bytes() == content

    def test_a_broken_file_is_no_obstacle_for_who_needs_it_not(self, file: ContextFile) -> None:
        put(file, "local", LOCAL)
        file.path.write_text("{")
        assert find_server(environ={"NEON_API_KEY": "napi_x"}).source == "NEON_API_KEY"

    def test_what_is_no_file_is_refused_at_once(self, file: ContextFile) -> None:
        """A pipe would have us wait for its writer."""
        file.path.parent.mkdir(mode=0o700)
        os.mkfifo(file.path, 0o600)
        with pytest.raises(ConfigurationError, match="is no file"):
            file.read()

    def test_a_link_stays_one(self, file: ContextFile, tmp_path: Path) -> None:
        """As who keeps their settings elsewhere has it."""
        put(file, "local", LOCAL)
        kept = file.path.rename(tmp_path / "kept.json")
        file.path.symlink_to(kept)
        put(file, "other", LOCAL)
        assert file.path.is_symlink()
        assert set(ContextFile(kept).read().named) == {"local", "other"}

    def test_nothing_is_written_when_nothing_changes(self, file: ContextFile) -> None:
        put(file, "local", LOCAL)
        before = file.path.stat()
        put(file, "local", LOCAL)
        assert (file.path.stat().st_ino, file.path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)

    def test_what_a_newer_version_wrote_stays(self, file: ContextFile) -> None:
        put(file, "local", LOCAL)
        told = json.loads(file.path.read_text())
        told["colour"] = "red"
        told["contexts"]["local"]["region"] = "here"
        file.path.write_text(json.dumps(told))
        put(file, "other", LOCAL)
        after = json.loads(file.path.read_text())
        assert (after["colour"], after["contexts"]["local"]["region"]) == ("red", "here")

    def test_a_disk_that_does_not_take_it_leaves_the_old_one(self, file: ContextFile) -> None:
        """And the error shows no key, nor do the frames that it came through."""
        put(file, "local", LOCAL)
        with pytest.raises(ConfigurationError) as caught, limited_files():
            put(file, "other", LOCAL)
        assert str(file.path) in str(caught.value)
        assert shown(caught.value) == []
        assert set(file.read().named) == {"local"}

    def test_a_writer_that_does_not_end_is_not_waited_for_for_ever(
        self, file: ContextFile, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        put(file, "local", LOCAL)
        monkeypatch.setattr(contexts, "LOCK_SECONDS", 0.05)
        with (file.path.parent / ".contexts.json.lock").open("w") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            with pytest.raises(ConfigurationError, match="another process holds"):
                put(file, "other", LOCAL)
        put(file, "other", LOCAL)

    @pytest.mark.parametrize(("value", "ends"), [("", ".config/lamplighter"), ("relative", ".config/lamplighter")])
    def test_a_relative_directory_counts_as_none(self, value: str, ends: str) -> None:
        path = default_path({"XDG_CONFIG_HOME": value})
        assert path.is_absolute()
        assert str(path.parent).endswith(ends)


_WRITER = """
import sys
from pathlib import Path
from lamplighter.api.secret import Secret
from lamplighter.client.contexts import ContextFile, remember_platform
for number in range(12):
    name = f"{sys.argv[2]}-{number}"
    remember_platform(base_url="http://127.0.0.1:7000", data_dir=Path(sys.argv[1]) / name,
                      api_key=Secret("napi_" + name), project_id=None)
"""


def test_writers_at_the_same_time_lose_nothing(file: ContextFile, tmp_path: Path) -> None:
    """Five processes, each with twelve platforms."""
    for writer in range(5):
        for number in range(12):
            (tmp_path / f"{writer}-{number}").mkdir()
    running = [subprocess.Popen([sys.executable, "-c", _WRITER, str(tmp_path), str(writer)]) for writer in range(5)]
    assert [process.wait(60) for process in running] == [0] * 5
    keys = {one.api_key for one in file.read().named.values()}
    assert keys == {Secret(f"napi_{writer}-{number}") for writer in range(5) for number in range(12)}
    assert {path.name for path in file.path.parent.iterdir()} == {"contexts.json", ".contexts.json.lock"}


def test_it_loads_neither_the_models_nor_the_http_client() -> None:
    """`lamp use` is on this path."""
    script = "import sys, lamplighter.client.contexts; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert not {"pydantic", "httpx2", "keyring", "asyncio", "psycopg"} & set(loaded)


def chain(*links: KeyringBackend) -> ChainerBackend:
    """A backend that asks one after the other."""
    return type("Chain", (ChainerBackend,), {"backends": list(links), "priority": 10})()


class TestKeychain:
    def test_a_key_in_the_keychain_is_not_in_the_file(self, file: ContextFile, drawer: Drawer) -> None:
        put(file, "neon", NEON)
        open_keychain().set(account("neon", NEON.base_url), Secret("napi_deep"))
        assert find_server(context="neon", environ={}).api_key.reveal() == "napi_deep"
        assert "napi_" not in file.path.read_text()
        assert drawer.kept == {("lamplighter", "neon at https://console.neon.tech/api/v2"): "napi_deep"}

    def test_it_is_the_key_of_that_server_alone(self, file: ContextFile, drawer: Drawer) -> None:
        """Who changes the URL in the file is sent no key."""
        put(file, "neon", NEON)
        open_keychain().set(account("neon", NEON.base_url), Secret("napi_deep"))
        file.path.write_text(file.path.read_text().replace("console.neon.tech", "evil.example"))
        with pytest.raises(ConfigurationError, match="the keychain has no key for the context 'neon'"):
            find_server(environ={"LAMP_CONTEXT": "neon"})

    def test_a_key_that_is_forgotten_is_gone_from_where_it_was(self, file: ContextFile, drawer: Drawer) -> None:
        put(file, "neon", NEON)
        put(file, "local", LOCAL)
        open_keychain().set(account("neon", NEON.base_url), Secret("napi_deep"))
        assert file.forget_key("neon") == NEON
        assert file.forget_key("local") == LOCAL
        assert drawer.kept == {}
        assert "napi_" not in file.path.read_text()
        assert [one.key_place for one in file.read().named.values()] == [None, None]

    @pytest.mark.parametrize("backend", [Null(), Fail(), chain(), chain(Null(), Fail())])
    def test_backends_that_keep_nothing_are_refused(
        self, backend: KeyringBackend, use_keychain: Callable[[Any], None]
    ) -> None:
        use_keychain(backend)
        with pytest.raises(ConfigurationError, match="no keychain that keeps a secret"):
            open_keychain()

    @pytest.mark.parametrize(("name", "priority"), [("PlaintextKeyring", 9), ("Homemade", 0.5)])
    def test_backends_that_keep_it_in_the_open_are_refused(
        self, name: str, priority: float, use_keychain: Callable[[Any], None]
    ) -> None:
        use_keychain(type(name, (Drawer,), {"priority": priority})())
        with pytest.raises(ConfigurationError, match="no keychain that keeps a secret"):
            open_keychain()

    def test_of_a_chain_only_what_keeps_secrets_is_used(self, use_keychain: Callable[[Any], None]) -> None:
        """A chain would hand them on to the next."""
        plain = type("PlaintextKeyring", (Drawer,), {"priority": 9})()
        good = Drawer()
        use_keychain(chain(plain, Null(), good))
        open_keychain().set("a", Secret("napi_x"))
        assert (plain.kept, good.kept) == ({}, {("lamplighter", "a"): "napi_x"})

    def test_a_keychain_that_forgets_is_noticed(self, use_keychain: Callable[[Any], None]) -> None:
        class Forgets(Drawer):
            def set_password(self, service: str, username: str, password: str) -> None:
                """Takes it, and keeps nothing."""

        use_keychain(Forgets())
        with pytest.raises(ConfigurationError, match="does not give back what it was given"):
            open_keychain().set("a", Secret("napi_x"))

    def test_a_keychain_that_fails_shows_no_key(self, use_keychain: Callable[[Any], None]) -> None:
        """Neither in the message nor in a frame, nor in an error that was dealt with on the way."""

        class Locked(Drawer):
            def set_password(self, service: str, username: str, password: str) -> None:
                raise RuntimeError(f"cannot keep {password}")

        use_keychain(Locked())
        with pytest.raises(ConfigurationError, match="does not take the key: RuntimeError") as caught:
            open_keychain().set("a", Secret("napi_x"))
        assert shown(caught.value) == []

    def test_without_keyring_it_says_what_to_install(self, config_home: Path) -> None:
        script = (
            "import sys; sys.modules['keyring'] = None\n"
            "from lamplighter.client.keychain import open_keychain\n"
            "try: open_keychain()\n"
            "except Exception as error: print(error)"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        assert done.stdout == "keyring is not installed: pip install 'lamplighter[keychain]'\n"


class TestFindServer:
    def test_the_servers_text_has_no_key(self, file: ContextFile) -> None:
        put(file, "local", LOCAL)
        server = find_server(environ={})
        assert str(server) == "http://127.0.0.1:7432/api/v2 (context local)"
        assert "napi_" not in repr(server)

    def test_a_key_of_the_file_that_cannot_be_one_is_said(self, file: ContextFile) -> None:
        put(file, "local", Context(base_url=LOCAL.base_url, api_key=Secret("napi_a\nX: y")))
        with pytest.raises(ConfigurationError, match="`lamp login local` gives it another") as caught:
            find_server(environ={})
        assert shown(caught.value) == []

    def test_it_tells_of_no_key_in_any_frame(self, file: ContextFile) -> None:
        with pytest.raises(ConfigurationError) as caught:
            find_server(api_key="napi_x", base_url="nonsense", environ={"NEON_API_KEY": "napi_y"})
        assert shown(caught.value) == []


def test_a_platform_is_remembered_by_its_directory(file: ContextFile, tmp_path: Path) -> None:
    """A second one gets a name of its own while the first is there, and the first's name when it is gone."""
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()

    def up(data_dir: Path, port: int, key: str | None) -> str | None:
        found = remember_platform(
            base_url=f"http://0.0.0.0:{port}/api/v2",
            data_dir=data_dir,
            api_key=Secret(key) if key else None,
            project_id=None,
        )
        return found.name if found else None

    assert up(one, 1, None) is None
    assert up(one, 1, "napi_1") == "local"
    assert up(two, 2, "napi_2") == "local-2"
    assert up(one, 3, None) == "local"
    assert find_server(environ={}).base_url == "http://127.0.0.1:3/api/v2"
    assert find_server(environ={}).api_key.reveal() == "napi_1"
    one.rmdir()
    three = tmp_path / "three"
    three.mkdir()
    assert up(three, 4, "napi_3") == "local"


def shown(error: BaseException | None) -> list[str]:
    """Frames outside of this folder whose local variables show a key, and texts of errors that do, causes included."""
    found: list[str] = []
    while error is not None:
        told = traceback.TracebackException.from_exception(error, capture_locals=True)
        found += [
            f"{frame.name}: {frame.locals}"
            for frame in told.stack
            if Path(frame.filename).parent != Path(__file__).parent and "napi_" in str(frame.locals)
        ]
        found += [text for text in (str(error), repr(error)) if "napi_" in text]
        error = error.__cause__ or error.__context__
    return found


class limited_files:  # noqa: N801 - a context manager that reads as a phrase
    """No file of this process may grow, as on a disk that is full."""

    def __enter__(self) -> None:
        import resource
        import signal

        self._signal = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        self._before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, self._before[1]))

    def __exit__(self, *_: object) -> None:
        import resource
        import signal

        resource.setrlimit(resource.RLIMIT_FSIZE, self._before)
        signal.signal(signal.SIGXFSZ, self._signal)
