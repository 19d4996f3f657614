"""What all stores over HTTP have in common: TLS, proxies, waiting, and what is left in memory."""

from __future__ import annotations

import http.client
import secrets
import select
import socket
import socketserver
import ssl
import threading
from base64 import b64encode
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from lamplighter.api.secret import Secret
from lamplighter.keys.errors import PolicyError, SinkError, SinkRefused, SinkUnreachable, SinkUnsafe
from lamplighter.keys.sinks.http import (
    VALUE,
    Body,
    HttpStore,
    check_url,
    is_loopback,
    join_address,
    json_body,
    path_of,
    split_address,
)
from lamplighter.keys.value import KeyBuffer
from support.stores.gitlab import GitLabStore
from support.stores.leaks import leaks, shown
from support.stores.server import Fault

HOST = "store.example.org"
_PROXIES = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy")


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in _PROXIES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def store() -> Iterator[GitLabStore]:
    store = GitLabStore(token=secrets.token_hex(20))
    store.holders["projects/a"] = []
    yield store
    store.close()


def client(store: GitLabStore, **more: Any) -> HttpStore:
    settings: dict[str, Any] = {"base_url": store.url, "address": "test:a", "token": lambda: Secret(store.token)}
    return HttpStore(**{**settings, **more})


def variables(store: HttpStore, method: str = "GET", **more: Any) -> int:
    with store.call(method, "/projects/a/variables", **more) as answer:
        return answer.status


# TLS and proxies


class Proxy(socketserver.ThreadingTCPServer):
    """Answers CONNECT, and leads every host to one port of this machine."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, port: int) -> None:
        self.target = port
        self.heads: list[str] = []
        self.passed = bytearray()
        self.status = "200 Connection established"
        super().__init__(("127.0.0.1", 0), _Tunnel)


class _Tunnel(socketserver.BaseRequestHandler):
    server: Proxy

    def handle(self) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self.request.recv(1)
        self.server.heads.append(head.decode())
        self.request.sendall(f"HTTP/1.1 {self.server.status}\r\n\r\n".encode())
        if not self.server.status.startswith("200"):
            return
        with socket.create_connection(("127.0.0.1", self.server.target)) as far:
            ends = {self.request: far, far: self.request}
            while True:
                for near in select.select(list(ends), [], [])[0]:
                    try:
                        data = near.recv(65_536)
                    except ConnectionError:
                        data = b""
                    if not data:
                        return
                    self.server.passed += data
                    ends[near].sendall(data)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For HOST, signed by itself: the key and the certificate in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, HOST)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(HOST)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return path


@pytest.fixture
def tls(store: GitLabStore, certificate: Path) -> int:
    """The port where the store speaks TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    store._server.socket = context.wrap_socket(store._server.socket, server_side=True, do_handshake_on_connect=False)
    return int(store._server.server_address[1])


@pytest.fixture
def proxy(tls: int) -> Iterator[Proxy]:
    server = Proxy(tls)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_proxy_of_the_environment_sees_neither_token_nor_value(
    store: GitLabStore, proxy: Proxy, certificate: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HTTPS_PROXY", f"http://me:word@127.0.0.1:{proxy.server_address[1]}")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    value = secrets.token_hex(32).encode()
    with KeyBuffer(bytearray(value)) as buffer:
        far = client(store, base_url=f"https://{HOST}/api/v4")
        assert variables(far, "POST", body=json_body({"key": "KEY", "value": VALUE}, buffer)) == 201
    assert store.holders["projects/a"][0]["value"] == value.decode()
    (head,) = proxy.heads
    assert head.startswith(f"CONNECT {HOST}:443 HTTP/1.")
    assert f"Proxy-Authorization: Basic {b64encode(b'me:word').decode()}" in head
    assert not leaks(head + proxy.passed.decode("latin-1"), value, store.token.encode())
    assert store.requests[-1].headers["host"] == HOST
    assert "proxy-authorization" not in store.requests[-1].headers


def test_a_proxy_that_refuses_is_said_without_its_words(
    store: GitLabStore, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
):
    proxy.status = "407 give me your-secret-word"
    monkeypatch.setenv("HTTPS_PROXY", f"http://me:own-secret-word@127.0.0.1:{proxy.server_address[1]}")
    with pytest.raises(SinkUnreachable, match="the proxy answers HTTP 407") as caught:
        variables(client(store, base_url=f"https://{HOST}/api/v4"))
    assert "secret-word" not in shown(caught.value)


def test_no_proxy_is_asked_for_what_no_proxy_names(store: GitLabStore, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HTTPS_PROXY", "socks5://127.0.0.1:1")
    with pytest.raises(SinkError, match="HTTPS_PROXY has to be"):
        variables(client(store, base_url=f"https://{HOST}"))
    assert variables(client(store)) == 200
    monkeypatch.setenv("NO_PROXY", HOST.replace("store", ""))
    with pytest.raises(SinkUnreachable, match="cannot reach"):
        variables(client(store, base_url=f"https://{HOST}:1"))


def test_a_certificate_that_is_not_trusted_ends_it_before_anything_is_sent(
    store: GitLabStore, tls: int, certificate: Path, monkeypatch: pytest.MonkeyPatch
):
    with pytest.raises(SinkUnreachable, match="not trusted: self-signed certificate"):
        variables(client(store, base_url=f"https://127.0.0.1:{tls}/api/v4"))
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with pytest.raises(SinkUnreachable, match="not trusted: IP address mismatch"):
        variables(client(store, base_url=f"https://127.0.0.1:{tls}/api/v4"))
    assert store.requests == []


def test_a_server_without_tls(store: GitLabStore):
    with pytest.raises(SinkUnreachable, match="no TLS connection"):
        variables(client(store, base_url=store.url.replace("http:", "https:")))


@pytest.mark.parametrize("url", ["http://example.org", "http://10.0.0.1:80/", "http://127.0.0.1.example.org/"])
def test_http_is_for_this_machine_alone(url: str):
    with pytest.raises(SinkUnsafe, match="https"):
        check_url(url, "test:a")
    with pytest.raises(SinkUnsafe):
        HttpStore(base_url=url, address="test:a", token=lambda: Secret("t"))


@pytest.mark.parametrize(
    "url",
    ["", "example.org", "ftp://localhost", "https://", "https://a:99999", "https://a?b", "https://a#b",
     "https://a b", "https://a\r\nHost: b", "https://me:s3cret@a", "https://\u00e9"],
)  # fmt: skip
def test_what_is_no_base_url(url: str):
    with pytest.raises(PolicyError) as caught:
        check_url(url, "test:a")
    assert "s3cret" not in str(caught.value)


def test_this_machine():
    here = ["localhost", "a.localhost", "127.0.0.1", "127.9.9.9", "::1"]
    assert all(map(is_loopback, here))
    assert not any(map(is_loopback, ["0.0.0.0", "10.0.0.1", "localhost.example.org", "127.0.0.1.nip.io", "::2", ""]))


# Waiting and asking again


@pytest.mark.parametrize("status", [429, 503])
def test_a_store_that_stays_busy_is_asked_four_times(store: GitLabStore, status: int):
    store.fail(Fault(status, b"{}", {"Retry-After": "0"}))
    with pytest.raises(SinkUnreachable, match=f"HTTP {status}.*busy"):
        variables(client(store))
    assert len(store.requests) == 4


def test_only_what_may_be_done_twice_is(store: GitLabStore):
    store.fail(Fault(503, b"{}", {"Retry-After": "0"}))
    for again, count in ((None, 1), (False, 1), (True, 4)):
        store.requests.clear()
        with pytest.raises(SinkUnreachable):
            variables(client(store), "POST", body=json_body({}), again=again)
        assert len(store.requests) == count


def test_the_pause_may_be_a_date_by_the_clock_of_the_store(store: GitLabStore):
    store._offset = timedelta(days=-1)
    soon, late = (format_datetime(store.now() + timedelta(seconds=each), usegmt=True) for each in (0, 4000))
    store.fail(Fault(429, b"{}", {"Retry-After": soon}), times=1)
    assert variables(client(store)) == 200
    store.fail(Fault(429, b"{}", {"Retry-After": late}))
    with pytest.raises(SinkUnreachable, match=r"wait (3999|4000) s"):
        variables(client(store))


@pytest.mark.parametrize("said", ["", "soon", "-1", "1e9", "Mon, 99 Foo 2026"])
def test_a_pause_that_makes_no_sense_is_ours(store: GitLabStore, said: str):
    store.fail(Fault(429, b"{}", {"Retry-After": said}), times=1)
    assert variables(client(store)) == 200


def test_a_token_goes_to_no_other_place(store: GitLabStore):
    with socket.create_server(("127.0.0.1", 0)) as other:
        store.fail(Fault(302, b"", {"Location": f"http://127.0.0.1:{other.getsockname()[1]}/"}))
        with pytest.raises(SinkError, match="elsewhere"):
            variables(client(store))
        other.setblocking(False)
        with pytest.raises(BlockingIOError):
            other.accept()


def test_an_answer_that_does_not_end_is_given_up(store: GitLabStore):
    store.fail(Fault(200, b"x" * (2 << 20)))
    with pytest.raises(SinkUnreachable, match="no whole answer"):
        variables(client(store))


@pytest.mark.parametrize("sizes", [(1, 2, 3), (40_000,), (16_384, 16_384, 1), (5, 300_000, 7)])
def test_an_answer_may_come_in_chunks_of_any_size(store: GitLabStore, sizes: tuple[int, ...]):
    """Larger ones than what is read at once too; one that breaks off is no answer."""
    value = secrets.token_hex(30_000).encode()[: min(sum(sizes), 60_000)]
    body = b'{"value": "' + value + b'"}' + b" " * (sum(sizes) - len(value))
    sizes = (*sizes, len(body) - sum(sizes))
    chunks, at = b"", 0
    for size in sizes:
        chunks += b"%x\r\n" % size + body[at : at + size] + b"\r\n"
        at += size
    store.fail(Fault(200, chunks + b"0\r\n\r\n", {"Transfer-Encoding": "chunked"}), times=1)
    with client(store).call("GET", "/projects/a/variables") as answer:
        found = answer.value("value")
    assert found is not None
    with found, found.reveal() as view:
        same = bytes(view) == value
    assert same
    store.fail(Fault(200, chunks, {"Transfer-Encoding": "chunked"}))
    with pytest.raises(SinkUnreachable, match="no whole answer"):
        variables(client(store))


# What is sent


def test_a_body_is_wiped_whatever_comes_of_it(store: GitLabStore):
    for fault in (None, Fault(500), Fault(reset=True)):
        if fault:
            store.fail(fault)
        body = Body(bytearray(b'{"key": "K", "value": "napi_1234"}'))
        try:
            variables(client(store), "POST", body=body)
        except SinkError:
            assert fault
        with body.reveal() as view:
            assert not any(view)
    assert repr(body) == "***"


def test_the_value_is_where_it_was_meant_to_be():
    """Also when the rest of the body looks like it."""
    with KeyBuffer(bytearray(b'a"\\\n\x7f\xe2\x82\xac')) as value:
        body = json_body({"note": "VALUE <0123456789abcdef>", "in": [{"deep": VALUE}]}, value)
    with body.reveal() as view:
        assert (
            bytes(view) == b'{"note": "VALUE <0123456789abcdef>", "in": [{"deep": "a\\"\\\\\\u000a\x7f\xe2\x82\xac"}]}'
        )


def test_a_value_that_is_no_text_is_refused_without_being_shown():
    value = secrets.token_hex(16).encode() + b"\xff"
    with KeyBuffer(bytearray(value)) as buffer, pytest.raises(SinkError, match="UTF-8") as caught:
        json_body({"value": VALUE}, buffer)
    assert not leaks(shown(caught.value), value)
    assert caught.value.__context__ is None


def test_http_client_prints_nothing():
    """With a debug level it would print whole requests."""
    assert http.client.HTTPConnection.debuglevel == 0


def test_a_proxy_or_a_server_may_refuse_the_token_too(store: GitLabStore):
    store.fail(Fault(407, b"{}"))
    with pytest.raises(SinkRefused):
        variables(client(store))


# Addresses


def test_paths_are_escaped():
    assert path_of("a/b", "..", 7, "ü?#") == "/a%2Fb/../7/%C3%BC%3F%23"


def test_an_address_with_options_is_taken_apart_and_put_together():
    known = frozenset({"scope", "url"})
    kind, place, options = split_address("test:a/b?scope=x/*", {"url": "https://h:1/p"}, known)
    assert (kind, place, options) == ("test", "a/b", {"scope": "x/*", "url": "https://h:1/p"})
    address = join_address(kind, place, {**options, "none": None})
    assert address == "test:a/b?scope=x/*&url=https://h:1/p"
    assert split_address(address, {}, known) == (kind, place, options)
    assert split_address(address, {"scope": "x/*"}, known) == (kind, place, options)
    for bad, more in (("test:a?scope=x", {"scope": "y"}), ("test:a?scope=x&scope=x", {}), ("test:a?", {})):
        with pytest.raises(PolicyError):
            split_address(bad, more, known)
    with pytest.raises(PolicyError, match="no option 'colour'"):
        split_address("test:a?colour=red", {}, known)


# The tests' own means


def test_a_leak_is_found_in_every_form():
    """Otherwise the tests of all sinks would prove nothing."""
    secret = b"napi_0123456789abcdefghijklmnop/+"
    for form in (
        secret,
        secret[10:18],
        b"x" + b64encode(b"y" + secret),
        b64encode(b"zz" + secret),
        secret.hex().encode(),
        secret[::-1],
        b"napi_012%2F%2B".replace(b"napi_012", b"") + b"ijklmnop%2F%2B",
    ):
        assert leaks(form.decode(), secret)
    assert not leaks("napi_01 and nothing else", secret)


def test_a_local_that_holds_a_secret_is_found():
    """In the frames below the test's own, as a traceback with locals prints them."""
    secret = secrets.token_hex(16).encode()

    class Plain:
        def __str__(self) -> str:
            raise SinkError

    with pytest.raises(SinkError) as caught:
        join_address("test", "", {secret.decode(): Plain()})  # type: ignore[dict-item]
    assert leaks(shown(caught.value), secret)
