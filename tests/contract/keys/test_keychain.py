"""The keychain, against the real Secret Service: gnome-keyring on a D-Bus session of its own."""

from __future__ import annotations

import contextlib
import gc
import secrets
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keyring
import pytest
import secretstorage
from keyring.backends.chainer import ChainerBackend
from keyring.backends.fail import Keyring as Failing
from keyring.backends.null import Keyring as Null
from keyring.backends.SecretService import Keyring as SecretService

from contract.keys.sink_contract import MARKER, SinkContract, content, fresh
from lamplighter.keys.errors import PolicyError, SinkError, SinkRefused, SinkUnreachable, SinkUnsafe
from lamplighter.keys.sinks.keychain import KeychainSink
from lamplighter.keys.value import KeyBuffer
from support.stores.keychain import secret_service
from support.stores.leaks import leaks, logged, shown

# keyring leaves its connection open when the keychain does not open.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <socket.socket:pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    # Not pytest's: the address of a socket has 107 characters at most.
    with tempfile.TemporaryDirectory(prefix="lamp-ring-") as name:
        yield Path(name)


@pytest.fixture(scope="module")
def bus(home: Path) -> Iterator[str]:
    with secret_service(home) as address:
        yield address


@pytest.fixture(autouse=True)
def session(bus: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", bus)
    before = keyring.get_keyring()
    keyring.set_keyring(SecretService())
    yield
    keyring.set_keyring(before)
    # Now, and not in a test of another file.
    gc.collect()


@pytest.fixture
def service() -> str:
    return f"neon-{secrets.token_hex(6)}"


@pytest.fixture
def sink(service: str) -> KeychainSink:
    return KeychainSink.parse(f"keychain:{service}/NEON_API_KEY", {})


def key(text: bytes = b"napi_0123456789") -> KeyBuffer:
    return KeyBuffer(bytearray(text))


def looked_up(service: str, name: str) -> bytes | None:
    """By another program."""
    done = subprocess.run(
        ["secret-tool", "lookup", "service", service, "username", name], capture_output=True, check=False, timeout=30
    )
    return done.stdout if done.returncode == 0 else None


class TestContract(SinkContract):
    @pytest.fixture
    def sink(self, service: str) -> KeychainSink:
        keyring.set_password(service, "another", "theirs")
        return KeychainSink.parse(f"keychain:{service}/NEON_API_KEY", {})

    @pytest.fixture
    def held(self, service: str) -> Callable[[], bytes | None]:
        return lambda: looked_up(service, "NEON_API_KEY")

    @pytest.fixture
    def neighbours(self, service: str) -> Callable[[], Any]:
        return lambda: looked_up(service, "another")


def test_the_file_of_the_keyring_holds_nothing_in_plain(home: Path, sink: KeychainSink):
    value = fresh()
    sink.write(key(value), MARKER)
    files = [path for path in home.rglob("*") if path.is_file()]
    assert files
    for path in files:
        leaked = value[5:25] in path.read_bytes()
        assert not leaked


def test_names_may_have_slashes(service: str):
    sink = KeychainSink.parse(f"keychain:{service}/team/NEON_API_KEY", {})
    sink.write(key(), MARKER)
    assert looked_up(service, "team/NEON_API_KEY") == b"napi_0123456789"


def test_a_locked_keychain_says_so(home: Path):
    """In a session of its own: the others need theirs open."""
    (home / "own").mkdir()
    with secret_service(home / "own") as address, pytest.MonkeyPatch.context() as patch:
        patch.setenv("DBUS_SESSION_BUS_ADDRESS", address)
        with contextlib.closing(secretstorage.dbus_init()) as connection:
            secretstorage.get_default_collection(connection).lock()
        sink = KeychainSink.parse("keychain:neon/NEON_API_KEY", {})
        value = fresh()
        for action in (sink.check, lambda: sink.write(key(value), MARKER), sink.read_back, sink.metadata, sink.delete):
            error = fails(action, value)
            assert isinstance(error, SinkRefused)
            assert "locked" in str(error)
            assert "unlock" in (error.hint or "")


def fails(action: Callable[[], Any], *hidden: bytes) -> SinkError:
    with logged() as log, pytest.raises(SinkError) as caught:
        action()
    leaked = leaks(shown(caught.value) + log.getvalue(), *hidden)
    assert not leaked
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    return caught.value


def test_nobody_on_the_bus(sink: KeychainSink, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", f"unix:path={tmp_path}/none")
    value = fresh()
    error = fails(lambda: sink.write(key(value), MARKER), value)
    assert isinstance(error, (SinkUnreachable, SinkUnsafe))


class PlaintextKeyring(Null):
    """As keyrings.alt has one: it takes everything and would keep it in a file."""

    priority = 0.5  # type: ignore[assignment]


class Breaking(Null):
    """A backend that fails with the value in its error."""

    priority = 5  # type: ignore[assignment]

    def set_password(self, service: str, username: str, password: str) -> None:
        raise RuntimeError(f"cannot keep {password}")


class Forgetful(Null):
    priority = 5  # type: ignore[assignment]


class Chain(ChainerBackend):
    priority = 10  # type: ignore[assignment]
    backends: Any = ()


@pytest.mark.parametrize("backend", [Failing, Null, PlaintextKeyring])
@pytest.mark.parametrize("chained", [False, True])
def test_what_is_no_keychain_is_refused(sink: KeychainSink, backend: Any, chained: bool):
    chosen = backend()
    if chained:
        chosen = Chain()
        chosen.backends = [backend(), Null()]
    keyring.set_keyring(chosen)
    value = fresh()
    for action in (sink.check, lambda: sink.write(key(value), MARKER), sink.read_back, sink.metadata):
        assert isinstance(fails(action, value), SinkUnsafe)


def test_in_a_chain_the_keychain_is_used_and_not_what_stands_beside_it(sink: KeychainSink):
    chain = Chain()
    chain.backends = [PlaintextKeyring(), SecretService()]
    keyring.set_keyring(chain)
    sink.write(key(), MARKER)
    assert looked_up(sink.service, sink.name) == b"napi_0123456789"


def test_an_error_that_holds_the_value_is_not_shown(sink: KeychainSink):
    keyring.set_keyring(Breaking())
    value = fresh()
    assert "RuntimeError" in str(fails(lambda: sink.write(key(value), MARKER), value))


def test_a_keychain_that_keeps_nothing_is_found_out(sink: KeychainSink):
    keyring.set_keyring(Forgetful())
    value = fresh()
    assert "give back" in str(fails(lambda: sink.write(key(value), MARKER), value))


def test_bytes_that_are_no_text_are_refused(sink: KeychainSink):
    for value in (b"\xff\xfe-not-text", b"with\0zero-in-it"):
        assert "text" in str(fails(lambda value=value: sink.write(key(value), MARKER), value))
    assert content(sink.read_back()) is None


@pytest.mark.parametrize(
    "address", ["keychain:", "keychain:service", "keychain:/name", "keychain:service/", "keychain:a/b\n"]
)
def test_addresses_that_cannot_be_meant(address: str):
    with pytest.raises(PolicyError):
        KeychainSink.parse(address, {})
