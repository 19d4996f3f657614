"""Vercel's environment variables, against a server with the shapes of `@vercel/sdk`."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from contract.keys.sink_contract import SinkContract
from lamplighter.keys.errors import PolicyError, SinkError, SinkNotFound
from lamplighter.keys.sinks.vercel import VercelSink
from lamplighter.keys.value import KeyBuffer
from support.stores.failing import HttpFailures
from support.stores.server import Fault
from support.stores.vercel import VercelStore


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[VercelStore]:
    store = VercelStore(token=secrets.token_hex(20))
    store.projects["shop"] = []
    monkeypatch.setenv("VERCEL_TOKEN", store.token)
    monkeypatch.delenv("VERCEL_ORG_ID", raising=False)
    yield store
    store.close()


def sink_at(store: VercelStore, address: str = "vercel:shop/NEON_API_KEY", **options: str) -> VercelSink:
    return VercelSink.parse(address, {"api_url": store.url, **options})


@pytest.fixture(params=["sensitive", "encrypted"])
def sink(store: VercelStore, request: pytest.FixtureRequest) -> VercelSink:
    return sink_at(store, type=request.param)


def key(text: bytes = b"napi_0123456789") -> KeyBuffer:
    return KeyBuffer(bytearray(text))


class TestContract(SinkContract):
    @pytest.fixture
    def sink(self, sink: VercelSink) -> VercelSink:
        return sink

    @pytest.fixture
    def held(self, store: VercelStore) -> Callable[[], bytes | None]:
        def held() -> bytes | None:
            found = [each for each in store.projects["shop"] if each["key"] == "NEON_API_KEY"]
            return found[0]["value"].encode() if found else None

        return held

    @pytest.fixture
    def neighbours(self, store: VercelStore) -> Callable[[], Any]:
        store.add("shop", "OTHER", "other")
        return lambda: [dict(each) for each in store.projects["shop"] if each["key"] != "NEON_API_KEY"]


class TestFailures(HttpFailures):
    pass


def test_a_new_variable_is_sensitive_and_not_for_development(store: VercelStore):
    sink = sink_at(store)
    sink.write(key(), "key 1")
    (made,) = store.projects["shop"]
    assert (made["value"], made["type"]) == ("napi_0123456789", "sensitive")
    assert set(made["target"]) == {"production", "preview"}
    assert sink.read_back() is None
    assert not sink.capabilities.readable


def test_a_variable_that_exists_keeps_its_targets_its_type_and_its_comment(store: VercelStore):
    made = store.add("shop", "NEON_API_KEY", "old", type="encrypted", target=["development"], comment="for CI")
    sink_at(store).write(key(), "key 1")
    assert store.projects["shop"] == [made]
    assert (made["value"], made["type"], made["target"]) == ("napi_0123456789", "encrypted", ["development"])
    assert made["comment"] == "for CI"


def test_an_encrypted_variable_is_read_back(store: VercelStore):
    sink = sink_at(store, type="encrypted")
    sink.write(key(b'a"\\\xc3\xa9\xf0\x9f\x94\x91'), "key 1")
    found = sink.read_back()
    assert found is not None
    with found.reveal() as view:
        assert bytes(view) == b'a"\\\xc3\xa9\xf0\x9f\x94\x91'


def test_what_is_sensitive_does_not_become_readable(store: VercelStore):
    store.add("shop", "NEON_API_KEY", "old")
    with pytest.raises(SinkError, match="sensitive"):
        sink_at(store, type="encrypted").write(key(), "key 1")


def test_of_two_variables_the_targets_say_which(store: VercelStore):
    live = store.add("shop", "NEON_API_KEY", "live", target=["production"])
    trial = store.add("shop", "NEON_API_KEY", "trial", target=["preview"])
    with pytest.raises(SinkError, match="2 variables"):
        sink_at(store).write(key(), "key 1")
    chosen = sink_at(store, "vercel:shop/NEON_API_KEY?targets=preview")
    chosen.write(key(), "key 1")
    assert (live["value"], trial["value"]) == ("live", "napi_0123456789")
    assert chosen != sink_at(store, "vercel:shop/NEON_API_KEY?targets=production")


def test_a_variable_for_more_than_the_targets_is_left_alone(store: VercelStore):
    made = store.add("shop", "NEON_API_KEY", "old")
    with pytest.raises(SinkError, match="preview, production"):
        sink_at(store, targets="preview").write(key(), "key 1")
    assert made["value"] == "old"


def test_variables_of_one_branch_of_git_are_left_alone(store: VercelStore):
    other = store.add("shop", "NEON_API_KEY", "branch", target=["preview"], gitBranch="dev")
    sink_at(store, targets="production").write(key(), "key 1")
    assert other["value"] == "branch"
    assert len(store.projects["shop"]) == 2


def test_a_project_of_a_team(store: VercelStore, monkeypatch: pytest.MonkeyPatch):
    """The team comes from the address, or from the variable that Vercel's own command uses."""
    store.projects["till"], store.teams["till"] = [], "team_1"
    with pytest.raises(SinkNotFound, match="404") as caught:
        sink_at(store, "vercel:till/KEY").check()
    assert "team_id" in (caught.value.hint or "")
    sink = sink_at(store, "vercel:till/KEY", team_id="team_1")
    sink.write(key(), "key 1")
    sink.write(key(b"second"), "key 2")
    monkeypatch.setenv("VERCEL_ORG_ID", "team_1")
    assert sink_at(store, "vercel:till/KEY") == sink
    assert store.projects["till"][0]["value"] == "second"
    sink.delete()
    assert store.projects["till"] == []


def test_a_yes_with_a_failure_in_it_is_a_failure(store: VercelStore):
    body = b'{"created": [], "failed": [{"error": {"code": "napi_0123456789", "value": "napi_0123456789"}}]}'
    store.fail(Fault(201, body), when=lambda request: request.method == "POST")
    with pytest.raises(SinkError, match="did not make") as caught:
        sink_at(store).write(key(), "key 1")
    assert "napi" not in str(caught.value)


@pytest.mark.parametrize(
    "address",
    [
        "vercel:shop",
        "vercel:/KEY",
        "vercel:shop/a/b",
        "vercel:shop/1KEY",
        "vercel:shop/KEY?targets=staging",
        "vercel:shop/KEY?targets=",
        "vercel:shop/KEY?targets=development",
        "vercel:shop/KEY?type=plain",
        "vercel:shop/KEY?colour=red",
        "vercel:shop/KEY?type=encrypted&type=sensitive",
    ],
)
def test_addresses_that_cannot_be_meant(address: str):
    with pytest.raises(PolicyError):
        VercelSink.parse(address, {})


def test_an_address_and_its_options_make_the_same_sink_again(store: VercelStore):
    sink = sink_at(store, targets="production,preview,development", type="encrypted", team_id="team_1")
    again = VercelSink.parse(sink.describe(), sink.options)
    assert again == sink
    assert again.capabilities == sink.capabilities
    assert VercelSink.parse("vercel:shop/KEY", {}).describe() == "vercel:shop/KEY"
