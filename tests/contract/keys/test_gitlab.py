"""GitLab's CI/CD variables, against a server with the shapes of its API."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from contract.keys.sink_contract import SinkContract
from lamplighter.keys.errors import PolicyError, SinkError, SinkNotFound, SinkUnsafe
from lamplighter.keys.sinks.gitlab import GitLabSink
from lamplighter.keys.value import KeyBuffer
from support.stores.failing import HttpFailures
from support.stores.gitlab import GitLabStore
from support.stores.leaks import leaks
from support.stores.server import Fault

PROJECT = "projects/shops/rye/till"


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[GitLabStore]:
    store = GitLabStore(token=f"glpat-{secrets.token_hex(20)}")
    store.holders[PROJECT] = []
    store.holders["groups/shops"] = []
    monkeypatch.setenv("GITLAB_TOKEN", store.token)
    monkeypatch.setenv("CI_API_V4_URL", store.url)
    yield store
    store.close()


def sink_at(address: str = "gitlab:shops/rye/till/NEON_API_KEY", **options: str) -> GitLabSink:
    return GitLabSink.parse(address, options)


@pytest.fixture(params=["gitlab:shops/rye/till/NEON_API_KEY", "gitlab-group:shops/NEON_API_KEY"])
def sink(store: GitLabStore, request: pytest.FixtureRequest) -> GitLabSink:
    return sink_at(request.param)


def key(text: bytes = b"napi_0123456789") -> KeyBuffer:
    return KeyBuffer(bytearray(text))


def read(sink: GitLabSink) -> bytes | None:
    found = sink.read_back()
    if found is None:
        return None
    with found, found.reveal() as view:
        return bytes(view)


class TestContract(SinkContract):
    #: A new variable is masked, and GitLab masks nothing short and nothing with blanks.
    awkward = tuple(each for each in SinkContract.awkward if len(each) >= 8 and b" " not in each)

    @pytest.fixture
    def sink(self, sink: GitLabSink) -> GitLabSink:
        return sink

    @pytest.fixture
    def holder(self, store: GitLabStore, sink: GitLabSink) -> str:
        return "groups/shops" if sink.describe().startswith("gitlab-group:") else PROJECT

    @pytest.fixture
    def held(self, store: GitLabStore, holder: str) -> Callable[[], bytes | None]:
        def held() -> bytes | None:
            found = store.find(holder, "NEON_API_KEY")
            return found["value"].encode() if found else None

        return held

    @pytest.fixture
    def neighbours(self, store: GitLabStore, holder: str) -> Callable[[], Any]:
        store.add(holder, "OTHER", "other")
        store.add(holder, "NEON_API_KEY", "elsewhere", environment_scope="staging")
        mine = ("NEON_API_KEY", "*")
        return lambda: [
            dict(each) for each in store.holders[holder] if (each["key"], each["environment_scope"]) != mine
        ]


class TestFailures(HttpFailures):
    pass


def test_a_new_variable_is_masked_and_taken_literally(store: GitLabStore):
    sink = sink_at()
    sink.write(key(b"napi_$HOME_0123"), "key 1")
    (made,) = store.holders[PROJECT]
    assert made["value"] == "napi_$HOME_0123"
    assert (made["masked"], made["raw"], made["protected"], made["hidden"]) == (True, True, False, False)
    assert read(sink) == b"napi_$HOME_0123"


def test_a_variable_that_exists_keeps_all_else(store: GitLabStore):
    made = store.add(PROJECT, "NEON_API_KEY", "old", protected=True, variable_type="file", description="for CI")
    before = dict(made)
    sink_at().write(key(), "key 1")
    assert store.holders[PROJECT] == [before | {"value": "napi_0123456789"}]


def test_scopes_are_variables_of_their_own(store: GitLabStore):
    everywhere = store.add(PROJECT, "NEON_API_KEY", "everywhere")
    sink = sink_at("gitlab:shops/rye/till/NEON_API_KEY?environment_scope=review/*")
    assert sink.metadata() is None
    sink.write(key(), "key 1")
    assert everywhere["value"] == "everywhere"
    made = store.find(PROJECT, "NEON_API_KEY", "review/*")
    assert made is not None
    assert made["value"] == "napi_0123456789"
    assert sink != sink_at()
    sink.delete()
    assert store.holders[PROJECT] == [everywhere]


def test_a_hidden_variable_cannot_be_read(store: GitLabStore):
    sink = sink_at(hidden="true", protected="true")
    sink.write(key(), "key 1")
    (made,) = store.holders[PROJECT]
    assert (made["hidden"], made["masked"], made["protected"]) == (True, True, True)
    assert not sink.capabilities.readable
    # Whoever does not know that it is hidden is told that there is nothing to read, not a wrong value.
    assert read(sink_at()) is None
    sink.write(key(b"second-value"), "key 2")
    assert made["value"] == "second-value"


def test_a_value_that_cannot_be_masked_is_refused_without_being_shown(store: GitLabStore):
    value = b"two words of a value"
    with pytest.raises(SinkError) as caught:
        sink_at().write(key(value), "key 1")
    assert caught.value.status == 400
    assert not leaks(f"{caught.value}", value)
    assert store.holders[PROJECT] == []


def test_a_variable_that_stops_being_masked_is_said(store: GitLabStore):
    store.add(PROJECT, "NEON_API_KEY", "old-value", masked=True)
    answer = b'{"key": "NEON_API_KEY", "value": "x", "masked": false, "environment_scope": "*"}'
    store.fail(Fault(200, answer), when=lambda request: request.method == "PUT")
    with pytest.raises(SinkUnsafe, match="mask"):
        sink_at().write(key(), "key 1")


def test_a_project_that_is_not_there_is_not_a_variable_that_is_not_there(store: GitLabStore):
    assert sink_at().metadata() is None
    assert read(sink_at()) is None
    for action in (GitLabSink.metadata, GitLabSink.read_back, GitLabSink.check):
        with pytest.raises(SinkNotFound):
            action(sink_at("gitlab:shops/rye/kiosk/NEON_API_KEY"))


def test_where_gitlab_is(monkeypatch: pytest.MonkeyPatch):
    """A job of GitLab says it; its command has a variable; otherwise it is gitlab.com."""
    monkeypatch.delenv("CI_API_V4_URL", raising=False)
    monkeypatch.delenv("GITLAB_HOST", raising=False)
    assert sink_at("gitlab:a/b/KEY").describe() == "gitlab:a/b/KEY"
    monkeypatch.setenv("GITLAB_HOST", "git.example.org")
    assert sink_at("gitlab:a/b/KEY").describe() == "gitlab:a/b/KEY?api_url=https://git.example.org/api/v4"
    monkeypatch.setenv("CI_API_V4_URL", "https://ci.example.org/api/v4")
    assert sink_at("gitlab:a/b/KEY").describe() == "gitlab:a/b/KEY?api_url=https://ci.example.org/api/v4"
    again = sink_at("gitlab:a/b/KEY?api_url=https://gitlab.com/api/v4", hidden="true")
    assert again.describe() == "gitlab:a/b/KEY"
    assert GitLabSink.parse(again.describe(), again.options).options == {"hidden": "true"}


@pytest.mark.parametrize(
    "address",
    [
        "gitlab:till/KEY",
        "gitlab:shops//KEY",
        "gitlab:shops/till/",
        "gitlab:shops/till/NOT-A-NAME",
        "gitlab-group:KEY",
        "gitlab:shops/till/KEY?environment_scope=",
        "gitlab:shops/till/KEY?hidden=maybe",
        "gitlab:shops/till/KEY?scope=a",
    ],
)
def test_addresses_that_cannot_be_meant(address: str):
    with pytest.raises(PolicyError):
        GitLabSink.parse(address, {})
