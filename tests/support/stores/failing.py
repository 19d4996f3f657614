"""What every sink that speaks HTTP does when its store does not: inherited by the tests of each."""

from __future__ import annotations

import dataclasses
import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from lamplighter.keys.errors import KeysError, SinkError, SinkNotFound, SinkRefused, SinkUnreachable
from lamplighter.keys.sinks.base import Sink
from lamplighter.keys.value import KeyBuffer
from support.stores.leaks import leaks, logged, shown
from support.stores.server import Fault, Request, Store

CHANGES = ("POST", "PUT", "PATCH")
HTML = b"<!doctype html><title>Sign in to the network</title>"

#: By status, the only classes that may come of it.
STATUSES: dict[int, type[SinkError]] = {
    307: SinkError,
    400: SinkError,
    401: SinkRefused,
    403: SinkRefused,
    404: SinkNotFound,
    409: SinkError,
    422: SinkError,
    429: SinkUnreachable,
    500: SinkUnreachable,
    503: SinkUnreachable,
}


@dataclass(frozen=True)
class Case:
    """A store, a sink of it, and what must never be seen."""

    store: Store
    sink: Sink
    value: bytes
    token: bytes

    def write(self) -> None:
        self.sink.write(KeyBuffer(bytearray(self.value)), "key 12, rotation abcdefghij")

    def echo(self, *, code: str = "code") -> bytes:
        """A body that says all it was told, in the words of the store and as its code, wherever stores have that."""
        value, token = self.value.decode(), self.token.decode()
        codes: dict[str, dict[str, Any]] = {
            "code": {"code": value[5:40]},
            "error": {"error": {"code": token, "message": value}},
            "errors": {"errors": [{"code": value[:20], "message": value, "pointer": token}]},
        }
        words = {"message": f"cannot take {value} from {token}", "request_id": value, "success": False}
        return json.dumps(words | codes[code]).encode()


class HttpFailures:
    """Subclasses give the fixtures `store` and `sink`, and `token` as the store has it."""

    @pytest.fixture
    def case(self, store: Store, sink: Sink) -> Case:
        value = f"napi_{secrets.token_hex(32)}".encode()
        sink._store = dataclasses.replace(sink._store, timeout=0.7)  # type: ignore[attr-defined]
        return Case(store, sink, value, store.token.encode())

    def fails(self, case: Case, action: Callable[[], Any]) -> KeysError:
        """The error, of which nothing secret can be seen."""
        with logged() as log, pytest.raises(SinkError) as caught:
            action()
        error = caught.value
        text = shown(error) + log.getvalue() + repr(case.sink)
        assert not leaks(text, case.value, case.token)
        assert "Sign in to the network" not in text
        assert error.__cause__ is None
        assert error.__context__ is None
        assert error.address == case.sink.describe()
        return error

    @pytest.mark.parametrize("status", STATUSES)
    def test_a_status_has_its_class_and_nothing_of_the_body(self, case: Case, status: int):
        headers = {"Content-Type": "application/json", "Retry-After": "0"} if status in (429, 503) else {}
        fault = Fault(status, case.echo(), {**headers, "Location": "http://127.0.0.1:9/"})
        for when in (anything, changes):
            case.store.fail(fault, when=when)
            error = self.fails(case, case.write)
            assert type(error) is STATUSES[status]
            assert error.status == status
            assert f"HTTP {status}" in str(error)
            case.store.mend()
        case.store.fail(fault)
        for look in (case.sink.check, case.sink.metadata):
            assert type(self.fails(case, look)) is STATUSES[status]
        if case.sink.capabilities.readable:
            assert type(self.fails(case, case.sink.read_back)) is STATUSES[status]

    @pytest.mark.parametrize(
        "fault",
        [
            Fault(200, HTML, {"Content-Type": "text/html"}),
            Fault(502, HTML, {"Content-Type": "text/html"}),
            Fault(200, b'{"success": true, "result": [{"id": "a1"', {"Content-Type": "application/json"}),
            Fault(200, b'{"key_id": "1"', declared=100),
            Fault(200, b'{"key_id": "1"', declared=100, hang=True),
            Fault(200, b"", {"Content-Type": "application/json"}),
            Fault(200, b"[]", {"Content-Type": "application/json"}),
            Fault(200, b"\xff\xfe{}", {"Content-Type": "application/json"}),
            Fault(200, b"[" * 100_000),
            Fault(reset=True),
            Fault(reset=True, after=True),
        ],
        ids=["html", "bad-gateway", "half", "short", "hangs", "empty", "list", "bytes", "deep", "reset", "reset-after"],
    )
    def test_an_answer_that_makes_no_sense_is_no_answer(self, case: Case, fault: Fault):
        for when in (anything, changes):
            case.store.fail(fault, when=when)
            assert type(self.fails(case, case.write)) is SinkUnreachable
            case.store.mend()
        case.store.fail(fault)
        assert type(self.fails(case, case.sink.metadata)) is SinkUnreachable

    @pytest.mark.parametrize("code", ["code", "error", "errors"])
    def test_a_code_that_is_what_was_sent_is_not_shown(self, case: Case, code: str):
        case.store.fail(Fault(400, case.echo(code=code)), when=changes)
        assert "code" not in str(self.fails(case, case.write))

    def test_the_code_of_the_store_is_shown(self, case: Case):
        case.store.fail(Fault(400, b'{"code": "bad_value", "message": "it was bad"}'), when=changes)
        error = str(self.fails(case, case.write))
        assert "code bad_value" in error
        assert "it was" not in error

    def test_ids_of_a_request_are_shown_unless_they_are_what_was_sent(self, case: Case):
        case.store.fail(Fault(500, b"{}"))
        assert "request F4CE:1234:5678" in str(self.fails(case, case.write))
        for echoed in (case.value, case.token, b"x" + case.value[10:30]):
            case.store.request_id = echoed.decode()
            case.store.mend()
            case.store.fail(Fault(500, b"{}"), when=changes)
            assert "request" not in str(self.fails(case, case.write))

    def test_a_busy_store_is_asked_again(self, case: Case):
        busy = Fault(429, b"{}", {"Retry-After": "0"})
        case.store.fail(busy, when=lambda request: request.method != "POST", times=2)
        case.write()
        assert case.sink.metadata() is not None

    def test_a_store_that_is_busy_for_long_is_not_waited_for(self, case: Case):
        case.store.fail(Fault(503, b"{}", {"Retry-After": "3600"}))
        assert "3600 s" in str(self.fails(case, case.write))
        assert len(case.store.requests) == 1

    def test_unreachable(self, case: Case):
        case.store.close()
        for action in (case.write, case.sink.check, case.sink.metadata):
            assert "Connection refused" in str(self.fails(case, action))
            assert type(self.fails(case, action)) is SinkUnreachable

    def test_a_token_that_the_store_does_not_know_is_refused(self, case: Case):
        case.store.token = "another"
        for action in (case.write, case.sink.check, case.sink.metadata):
            error = self.fails(case, action)
            assert type(error) is SinkRefused
            assert error.hint

    def test_no_url_ever_holds_the_value(self, case: Case):
        case.write()
        for request in case.store.requests:
            head = f"{request.path} {request.query} { ({**request.headers} | {'authorization': ''}) }"
            assert not leaks(head, case.value, case.token)


def anything(_: Request) -> bool:
    return True


def changes(request: Request) -> bool:
    return request.method in CHANGES
