"""Minting over a wire that does anything: what comes of it, and what is seen of the value."""

from __future__ import annotations

import json
import re
import secrets
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from lamplighter.api.secret import Secret
from lamplighter.keys.errors import KeysError, MintError, MinterUnfit, MintUnknown, NotProven
from lamplighter.keys.neon import MintedKey, NeonKeys
from lamplighter.keys.records import Scope
from lamplighter.keys.value import KeyBuffer
from support.stores.leaks import leaks, logged, shown

PERSONAL = Scope(kind="personal")
PROJECT = Scope(kind="project", org_id="org-a/b", project_id="p-1")
MINTER = "napi_minter_" + "m" * 50


class Wire:
    """Answers each connection with the next of these bytes, exactly; None closes it without a word."""

    def __init__(self, *answers: bytes | None) -> None:
        self.requests: list[bytes] = []
        self._answers = list(answers)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}/api/v2"

    def _serve(self) -> None:
        for answer in self._answers:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, suppress(OSError):
                self.requests.append(_whole(connection))
                if answer is not None:
                    connection.sendall(answer)

    def close(self) -> None:
        # Wakes the thread, where it still waits.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


def _whole(connection: socket.socket) -> bytes:
    content = b""
    while b"\r\n\r\n" not in content:
        content += connection.recv(65536)
    found = re.search(rb"content-length: (\d+)", content, re.IGNORECASE)
    length = content.index(b"\r\n\r\n") + 4 + (int(found[1]) if found else 0)
    while len(content) < length:
        content += connection.recv(65536)
    return content


@contextmanager
def answering(*answers: bytes | None) -> Iterator[tuple[NeonKeys, Wire]]:
    wire = Wire(*answers)
    try:
        yield NeonKeys(base_url=wire.url, api_key=Secret(MINTER), timeout=5.0), wire
    finally:
        wire.close()


def http(status: int, body: bytes, *, headers: str = "") -> bytes:
    return f"HTTP/1.1 {status} Said\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body


def chunked(body: bytes, size: int) -> bytes:
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(f"{len(part):x}\r\n".encode() + part + b"\r\n" for part in parts) + b"0\r\n\r\n"


@pytest.fixture
def value() -> str:
    return f"napi_{secrets.token_hex(32)}"


def minted(value: str, **more: object) -> bytes:
    return json.dumps({"id": 12, "key": value, "name": "n", "created_at": "2026-01-01T00:00:00Z", **more}).encode()


def held(key: MintedKey) -> str:
    with key.value, key.value.reveal() as view:
        return bytes(view).decode()


@pytest.mark.parametrize(
    "send",
    [
        lambda body: http(200, body),
        lambda body: http(201, b"\r\n\t " + body + b"\n"),
        lambda body: chunked(body, 7),
        lambda body: chunked(body, 10_000),
        lambda body: b"HTTP/1.0 200 OK\r\n\r\n" + body,
        lambda body: b"HTTP/1.1 100 Continue\r\n\r\n" + http(200, body),
    ],
    ids=["length", "blanks", "small-chunks", "one-chunk", "until-closed", "continue"],
)
def test_a_key_however_it_is_sent(value: str, send):
    with answering(send(minted(value, project_id="p-1"))) as (neon, wire):
        key = neon.mint(PROJECT, "lamp.ci.abcdefghij")
    assert (key.key_id, key.project_id) == (12, "p-1")
    same = held(key) == value
    assert same
    (request,) = wire.requests
    assert request.startswith(b"POST /api/v2/organizations/org-a%2Fb/api_keys HTTP/1.1\r\n")
    assert request.count(f"Authorization: Bearer {MINTER}\r\n".encode()) == 1
    assert json.loads(request.partition(b"\r\n\r\n")[2]) == {"key_name": "lamp.ci.abcdefghij", "project_id": "p-1"}


def test_a_key_with_escapes_and_among_others_of_its_name(value: str):
    """Only the member `key` of the object itself is the key."""
    escaped = "".join(f"\\u{ord(letter):04x}" for letter in value)
    body = f'{{"x": {{"key": "inner"}}, "y": ["key", {{"key": 1}}], "key": "{escaped}", "id": 7}}'.encode()
    with answering(http(200, body)) as (neon, _):
        key = neon.mint(PERSONAL, "n")
    assert key.key_id == 7
    same = held(key) == value
    assert same


def fails(neon: NeonKeys, *never: str) -> KeysError:
    """The error, of which nothing secret can be seen."""
    with logged() as log, pytest.raises(KeysError) as caught:
        neon.mint(PERSONAL, "n")
    text = shown(caught.value) + log.getvalue()
    leaked = leaks(text, MINTER.encode(), *(each.encode() for each in never))
    assert not leaked
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    return caught.value


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (301, MintError),
        (400, MintError),
        (401, MinterUnfit),
        (403, MinterUnfit),
        (404, MintError),
        (408, MintUnknown),
        (409, MintError),
        (422, MintError),
        (500, MintUnknown),
        (502, MintUnknown),
        (504, MintUnknown),
    ],
)
def test_what_a_status_means_and_that_it_is_asked_once(status: int, kind: type[KeysError], value: str):
    """Whatever the server echoes into its message, nothing of a key is seen."""
    body = json.dumps({"code": "", "message": f"no, {MINTER} may not have {value}", "key": value}).encode()
    with answering(http(status, body), http(200, minted(value))) as (neon, wire):
        error = fails(neon, value)
    assert type(error) is kind
    assert f"HTTP {status}" in str(error)
    assert "no, *** may not have ***" in str(error)
    assert len(wire.requests) == 1


@pytest.mark.parametrize("status", [423, 429, 503])
def test_what_surely_did_nothing_is_asked_again(status: int, value: str):
    busy = http(status, b"{}", headers="Retry-After: 0\r\n")
    with answering(busy, busy, http(200, minted(value))) as (neon, wire):
        same = held(neon.mint(PERSONAL, "n")) == value
    assert same
    assert len(wire.requests) == 3


def broken(value: str) -> dict[str, bytes | None]:
    whole = minted(value)
    return {
        "closed": None,
        "no-http": b"hello\r\n\r\n",
        "half-a-head": b"HTTP/1.1 200 OK\r\nContent-Le",
        "half-a-body": http(200, whole)[:-20],
        "half-a-chunk": chunked(whole, 40)[:-30],
        "html": http(200, b"<!doctype html><title>Sign in</title>" + value.encode()),
        "empty": http(200, b""),
        "list": http(200, b"[" + whole + b"]"),
        "no-key": http(200, b'{"id": 1}'),
        "no-id": http(200, json.dumps({"key": value}).encode()),
        "id-is-the-key": http(200, minted(value).replace(b"12", f'"{value}"'.encode())),
        "a-key-with-blanks": http(200, minted(f"a {value}")),
        "two-keys": http(200, whole[:-1] + f', "key": "{value}"}}'.encode()),
        "endless": b"HTTP/1.1 200 OK\r\n\r\n" + value.encode() * 20_000,
    }


@pytest.mark.parametrize("how", broken(""))
def test_an_answer_that_cannot_be_read_leaves_open_whether_there_is_a_key(how: str, value: str):
    """It is never asked again: that would be a second key of one name."""
    with answering(broken(value)[how], http(200, minted(value))) as (neon, wire):
        error = fails(neon, value)
    assert type(error) is MintUnknown
    assert len(wire.requests) == 1


def test_an_answer_that_takes_too_long(value: str):
    """One byte now and then does not outlast the deadline."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ended = threading.Event()

        def drip() -> None:
            connection, _ = listener.accept()
            with connection, suppress(OSError):
                while not ended.wait(0.05):
                    connection.sendall(b"H")

        thread = threading.Thread(target=drip)
        thread.start()
        neon = NeonKeys(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", api_key=Secret(MINTER), timeout=0.3)
        try:
            error = fails(neon)
        finally:
            ended.set()
            thread.join()
    assert type(error) is MintUnknown
    assert "too long" in str(error)


def test_a_server_that_is_not_there_made_no_key():
    """Refused before anything was sent: this is known, and may be tried again."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/api/v2"
    error = fails(NeonKeys(base_url=url, api_key=Secret(MINTER)))
    assert type(error) is MintError
    assert "Connection refused" in str(error)


def test_a_new_key_is_tried_without_being_shown(value: str):
    """The server says it to our face: it stays between us."""
    said = json.dumps({"message": f"what is {value}?", "account_id": 5}).encode()
    with answering(http(403, said)) as (neon, wire), logged() as log, pytest.raises(NotProven) as caught:
        neon.try_key(KeyBuffer(bytearray(value.encode())))
    leaked = leaks(shown(caught.value) + log.getvalue(), value.encode())
    assert not leaked
    assert f"Authorization: Bearer {value}".encode() in wire.requests[0]


MINTING = """
import sys
from lamplighter.api.secret import Secret
from lamplighter.keys.neon import NeonKeys
from lamplighter.keys.records import Scope

neon = NeonKeys(base_url=sys.argv[1], api_key=Secret("minter"))
key = neon.mint(Scope(kind="personal"), "n")
neon.try_key(key.value)
print("minted", flush=True)
sys.stdin.readline()
key.value.wipe()
print("wiped", flush=True)
sys.stdin.readline()
"""


def copies(pid: int, value: bytes) -> int:
    """How often the value is in the memory of a process."""
    count = 0
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            span, access = line.split()[:2]
            if not access.startswith("rw"):
                continue
            start, end = (int(part, 16) for part in span.split("-"))
            with suppress(OSError, OverflowError):
                memory.seek(start)
                count += memory.read(end - start).count(value)
    return count


def test_memory_holds_one_copy_of_the_value_and_none_once_it_is_wiped(value: str):
    """After it was minted and tried, and asked of the process's memory itself."""
    who = json.dumps({"account_id": "a", "auth_method": "api_key_user"}).encode()
    wire = Wire(http(200, minted(value)), http(200, who))
    child = subprocess.Popen(
        [sys.executable, "-c", MINTING, wire.url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == "minted\n"
        assert copies(child.pid, value.encode()) == 1
        child.stdin.write("\n")
        child.stdin.flush()
        assert child.stdout.readline() == "wiped\n"
        assert copies(child.pid, value.encode()) == 0
    finally:
        child.kill()
        child.communicate()
        wire.close()
