"""Cloudflare's Secrets Store and secrets of Workers; what is put there, its own command line client lists."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from contract.keys.sink_contract import SinkContract
from lamplighter.keys.errors import PolicyError, SinkError, SinkNotFound
from lamplighter.keys.sinks.cloudflare import CloudflareStoreSink, CloudflareWorkerSink
from lamplighter.keys.value import KeyBuffer
from support.stores.cloudflare import CloudflareStore, Wrangler, wrangler_client
from support.stores.failing import HttpFailures
from support.stores.server import Fault

ACCOUNT = "0123456789abcdef0123456789abcdef"
CloudflareSink = CloudflareStoreSink | CloudflareWorkerSink


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[CloudflareStore]:
    store = CloudflareStore(token=secrets.token_hex(20), account=ACCOUNT)
    store.add_store("default_secrets_store")
    store.workers["edge"] = {}
    monkeypatch.setenv("CLOUDFLARE_API_TOKEN", store.token)
    monkeypatch.setenv("CLOUDFLARE_API_BASE_URL", store.url)
    yield store
    store.close()


@pytest.fixture
def store_id(store: CloudflareStore) -> str:
    return next(iter(store.stores))


def in_store(store: str = "default_secrets_store", name: str = "NEON_API_KEY") -> CloudflareStoreSink:
    return CloudflareStoreSink.parse(f"cloudflare-store:{ACCOUNT}/{store}/{name}", {})


def in_worker(script: str = "edge", name: str = "NEON_API_KEY") -> CloudflareWorkerSink:
    return CloudflareWorkerSink.parse(f"cloudflare-worker:{ACCOUNT}/{script}/{name}", {})


@pytest.fixture(params=[in_store, in_worker], ids=["store", "worker"])
def sink(store: CloudflareStore, request: pytest.FixtureRequest) -> CloudflareSink:
    made: CloudflareSink = request.param()
    return made


@pytest.fixture
def wrangler(store: CloudflareStore, tmp_path: Path) -> Wrangler:
    return wrangler_client(store, tmp_path)


def key(text: bytes = b"napi_0123456789") -> KeyBuffer:
    return KeyBuffer(bytearray(text))


def row(table: str, name: str) -> list[str]:
    """The cells of wrangler's table, in the row of this name."""
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in table.splitlines() if "│" in line]
    (found,) = [cells for cells in rows if cells[0] == name]
    return found


class TestContract(SinkContract):
    @pytest.fixture
    def sink(self, sink: CloudflareSink) -> CloudflareSink:
        return sink

    @pytest.fixture
    def held(self, store: CloudflareStore, store_id: str, sink: CloudflareSink) -> Callable[[], bytes | None]:
        def held() -> bytes | None:
            if isinstance(sink, CloudflareStoreSink):
                found = store.named(store_id, "NEON_API_KEY")
                return found["value"].encode() if found else None
            secret = store.workers["edge"].get("NEON_API_KEY")
            return secret["text"].encode() if secret else None

        return held

    @pytest.fixture
    def neighbours(self, store: CloudflareStore, store_id: str) -> Callable[[], Any]:
        in_store(name="OTHER").write(key(b"other"), "other")
        in_worker(name="OTHER").write(key(b"other"), "other")
        return lambda: (dict(store.named(store_id, "OTHER") or {}), dict(store.workers["edge"]["OTHER"]))


class TestFailures(HttpFailures):
    pass


# With wrangler


def test_wrangler_lists_what_was_put_into_the_store(wrangler: Wrangler, store: CloudflareStore, store_id: str):
    """With the key and the rotation in its comment, and without the value."""
    in_store().write(key(), "key 12, rotation abcdefghij")
    table = wrangler("secrets-store", "secret", "list", store_id, "--remote")
    found = store.named(store_id, "NEON_API_KEY")
    assert found is not None
    assert row(table, "NEON_API_KEY")[:5] == [
        "NEON_API_KEY",
        found["id"],
        "key 12, rotation abcdefghij",
        "workers",
        "pending",
    ]
    assert "napi_" not in table


def test_a_secret_of_wrangler_is_overwritten_and_its_scopes_stay(
    wrangler: Wrangler, store: CloudflareStore, store_id: str
):
    scopes = ("--scopes", "workers,ai_gateway")
    wrangler("secrets-store", "secret", "create", store_id, "--name", "NEON_API_KEY", *scopes, "--remote", stdin="old")
    before = dict(store.named(store_id, "NEON_API_KEY") or {})
    in_store().write(key(), "key 12")
    after = store.named(store_id, "NEON_API_KEY") or {}
    assert (before["value"], after["value"]) == ("old", "napi_0123456789")
    assert after["id"] == before["id"]
    assert after["scopes"] == before["scopes"]
    assert len(after["scopes"]) == 2


def test_wrangler_lists_what_was_put_into_a_worker(wrangler: Wrangler, store: CloudflareStore):
    wrangler("secret", "put", "OTHER", "--name", "edge", stdin="other")
    in_worker().write(key(), "key 12")
    listed = json.loads(wrangler("secret", "list", "--name", "edge"))
    assert {each["name"]: each["type"] for each in listed} == {"OTHER": "secret_text", "NEON_API_KEY": "secret_text"}
    assert store.workers["edge"]["NEON_API_KEY"]["text"] == "napi_0123456789"
    assert store.workers["edge"]["OTHER"]["text"] == "other"


# The Secrets Store


def test_a_store_is_found_by_its_name_or_its_id(store: CloudflareStore, store_id: str):
    in_store(store_id).write(key(b"one"), "key 1")
    in_store().write(key(b"two"), "key 2")
    assert [each["value"] for each in store.stores[store_id]["secrets"].values()] == ["two"]
    with pytest.raises(SinkNotFound, match="no Secrets Store 'other'"):
        in_store("other").check()


def test_lists_are_read_to_their_end(store: CloudflareStore):
    """A store or a secret on a later page is found, and not made a second time."""
    store.page = 2
    for number in range(5):
        last = store.add_store(f"store {number}")
    for number in range(5):
        in_store(last, f"KEY_{number}").write(key(b"old"), "key 1")
    sink = in_store("store 4", "KEY_4")
    sink.write(key(b"new"), "key 2")
    values = {each["name"]: each["value"] for each in store.stores[last]["secrets"].values()}
    assert values == {"KEY_0": "old", "KEY_1": "old", "KEY_2": "old", "KEY_3": "old", "KEY_4": "new"}


def test_metadata_moves_and_a_deleted_secret_is_not_there(store: CloudflareStore, store_id: str):
    sink = in_store()
    assert sink.metadata() is None
    sink.write(key(), "key 1")
    first = sink.metadata()
    receipt = sink.write(key(), "key 2")
    second = sink.metadata()
    assert first is not None
    assert second is not None
    assert first.updated_at is not None
    assert second.updated_at == receipt.updated_at
    assert second.updated_at is not None
    assert first.updated_at < second.updated_at
    (store.named(store_id, "NEON_API_KEY") or {})["status"] = "deleted"
    assert sink.metadata() is None


def test_making_a_secret_is_not_tried_twice(store: CloudflareStore):
    """A POST that a busy store turned away may have been done: the next run finds out."""
    store.fail(Fault(503, b"{}", {"Retry-After": "0"}), when=lambda request: request.method == "POST")
    with pytest.raises(SinkError):
        in_store().write(key(), "key 1")
    assert [request.method for request in store.requests].count("POST") == 1


# Workers


def test_a_worker_that_is_not_there(store: CloudflareStore):
    for action in (lambda: in_worker("none").check(), lambda: in_worker("none").write(key(), "key 1")):
        with pytest.raises(SinkNotFound, match="code 10007"):
            action()


def test_a_secret_of_another_type_is_left_alone(store: CloudflareStore):
    store.workers["edge"]["NEON_API_KEY"] = {"type": "secret_key", "text": "a signing key"}
    with pytest.raises(SinkError, match="another type"):
        in_worker().metadata()


def test_deleting(store: CloudflareStore, store_id: str):
    for sink in (in_store(), in_worker()):
        sink.delete()
        sink.write(key(), "key 1")
        sink.delete()
        assert sink.metadata() is None
    assert store.named(store_id, "NEON_API_KEY") is None
    assert store.workers["edge"] == {}


# Addresses


@pytest.mark.parametrize(
    "address",
    [
        "cloudflare-store:account/store",
        "cloudflare-store:account/store/name/more",
        "cloudflare-store:account//name",
        "cloudflare-store:account/../name",
        "cloudflare-store:account/store/name with blanks",
        "cloudflare-store:account/store/name?page=2",
        "cloudflare-store:account/store/name?",
    ],
)
def test_addresses_that_cannot_be_meant(address: str):
    with pytest.raises(PolicyError):
        CloudflareStoreSink.parse(address, {})


def test_an_address_makes_the_same_sink_again(store: CloudflareStore, monkeypatch: pytest.MonkeyPatch):
    """Also in a process whose environment does not say where Cloudflare is."""
    sinks = [in_store(), in_worker()]
    monkeypatch.delenv("CLOUDFLARE_API_BASE_URL")
    for sink in sinks:
        assert type(sink).parse(sink.describe(), sink.options) == sink
    assert in_store().describe() == f"cloudflare-store:{ACCOUNT}/default_secrets_store/NEON_API_KEY"
    assert in_store() != sinks[0]
