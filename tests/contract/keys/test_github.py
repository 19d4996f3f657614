"""GitHub's secrets, against a server that opens the sealed boxes; what is put there, the real `gh` lists."""

from __future__ import annotations

import dataclasses
import json
import os
import secrets
import stat
import sys
import sysconfig
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from contract.keys.sink_contract import SinkContract
from lamplighter.keys.errors import PolicyError, SinkError, SinkNotFound, SinkRefused, SinkUnreachable
from lamplighter.keys.sinks.github import GitHubSink
from lamplighter.keys.value import KeyBuffer
from support.stores.failing import HttpFailures
from support.stores.github import Gh, GitHubStore, Sealed, gh_client
from support.stores.leaks import leaks, shown
from support.stores.server import Fault

PLACES = {
    "github:octo/shop/NEON_API_KEY": "repos/octo/shop/actions",
    "github-env:octo/shop/production/NEON_API_KEY": "repos/octo/shop/environments/production",
    "github-org:octo/NEON_API_KEY": "orgs/octo/actions",
    "github-dependabot:octo/shop/NEON_API_KEY": "repos/octo/shop/dependabot",
    "github-codespaces:octo/shop/NEON_API_KEY": "repos/octo/shop/codespaces",
    "github-agents:octo/shop/NEON_API_KEY": "repos/octo/shop/agents",
}
_TOKENS = ("GH_TOKEN", "GITHUB_TOKEN", "GH_ENTERPRISE_TOKEN", "GITHUB_ENTERPRISE_TOKEN")


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[GitHubStore]:
    store = GitHubStore(token=f"ghp_{secrets.token_hex(18)}")
    for place in PLACES.values():
        store.add(place)
    for name in _TOKENS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GH_TOKEN", store.token)
    monkeypatch.setenv("GITHUB_API_URL", store.url)
    yield store
    store.close()


def sink_at(address: str = "github:octo/shop/NEON_API_KEY", **options: str) -> GitHubSink:
    return GitHubSink.parse(address, options)


@pytest.fixture(params=list(PLACES))
def sink(store: GitHubStore, request: pytest.FixtureRequest) -> GitHubSink:
    return sink_at(request.param)


@pytest.fixture
def gh(store: GitHubStore, tmp_path: Path) -> Iterator[Gh]:
    with gh_client(store, tmp_path) as run:
        yield run


def key(text: bytes = b"napi_0123456789") -> KeyBuffer:
    return KeyBuffer(bytearray(text))


class TestContract(SinkContract):
    @pytest.fixture
    def sink(self, sink: GitHubSink) -> GitHubSink:
        return sink

    @pytest.fixture
    def held(self, store: GitHubStore, sink: GitHubSink) -> Callable[[], bytes | None]:
        place = store.places[PLACES[sink.describe().partition("?")[0]]]
        return lambda: place["NEON_API_KEY"].value if "NEON_API_KEY" in place else None

    @pytest.fixture
    def neighbours(self, store: GitHubStore) -> Callable[[], Any]:
        for place in PLACES.values():
            store.places[place]["OTHER"] = Sealed(b"other", store.now(), store.now(), "all", [])
        return lambda: {
            (place, name): dataclasses.astuple(secret)
            for place, secrets in store.places.items()
            for name, secret in secrets.items()
            if name != "NEON_API_KEY"
        }


class TestFailures(HttpFailures):
    @pytest.fixture(params=list(PLACES)[:3])
    def sink(self, store: GitHubStore, request: pytest.FixtureRequest) -> GitHubSink:
        return sink_at(request.param)


# With gh


@pytest.mark.parametrize(
    ("address", "where"),
    [
        ("github:octo/shop/NEON_API_KEY", ("-R", "octo/shop")),
        ("github-env:octo/shop/production/NEON_API_KEY", ("-R", "octo/shop", "--env", "production")),
        ("github-org:octo/NEON_API_KEY", ("--org", "octo")),
        ("github-dependabot:octo/shop/NEON_API_KEY", ("-R", "octo/shop", "--app", "dependabot")),
        ("github-agents:octo/shop/NEON_API_KEY", ("-R", "octo/shop", "--app", "agents")),
        ("github-codespaces:octo/shop/NEON_API_KEY", ("-R", "octo/shop", "--app", "codespaces")),
    ],
)
def test_gh_lists_what_was_put_there_and_github_can_open_it(
    gh: Gh, store: GitHubStore, address: str, where: tuple[str, ...]
):
    """The exact bytes arrive, gh shows the time that our metadata has, and what gh put beside it stays."""
    gh("secret", "set", "OTHER", *where, stdin="other")
    value = b"napi_" + secrets.token_bytes(40) + b'"\\\n'
    sink = sink_at(address)
    receipt = sink.write(key(value), "key 12, rotation abcdefghij")
    secret = store.places[PLACES[address]]
    assert (secret["NEON_API_KEY"].value == value, secret["OTHER"].value) == (True, b"other")
    listed: list[dict[str, Any]] = json.loads(gh("secret", "list", *where, "--json", "name,updatedAt"))
    times = {each["name"]: datetime.fromisoformat(each["updatedAt"]) for each in listed}
    assert set(times) == {"OTHER", "NEON_API_KEY"}
    found = sink.metadata()
    assert found is not None
    assert found.updated_at == times["NEON_API_KEY"]
    assert receipt.server_date is not None
    assert found.updated_at >= receipt.server_date
    assert not leaks(json.dumps([request.body.decode() for request in store.requests]), value)


def test_a_secret_of_an_organization_keeps_who_may_use_it(gh: Gh, store: GitHubStore):
    """For each kind of visibility that gh can give, more repositories than a page of the list holds included."""
    store.page = 2
    store.repositories = {f"octo/shop-{number}": number for number in range(11, 16)}
    sink, place = sink_at("github-org:octo/NEON_API_KEY"), store.places["orgs/octo/actions"]
    for chosen in (
        ("--visibility", "all"),
        ("--visibility", "private"),
        ("--repos", ",".join(store.repositories)),
        ("--no-repos-selected",),
    ):
        gh("secret", "set", "NEON_API_KEY", "--org", "octo", *chosen, stdin="old")
        before = place["NEON_API_KEY"]
        sink.write(key(), "key 12")
        after = place["NEON_API_KEY"]
        assert (before.value, after.value) == (b"old", b"napi_0123456789")
        assert (after.visibility, after.repositories) == (before.visibility, before.repositories)
    listed = json.loads(gh("secret", "list", "--org", "octo", "--json", "name,visibility,numSelectedRepos"))
    assert listed == [{"name": "NEON_API_KEY", "numSelectedRepos": 0, "visibility": "selected"}]


def test_repositories_that_are_not_all_listed_lose_nothing(gh: Gh, store: GitHubStore):
    """A list that breaks off must not take the secret from the repositories that it leaves out."""
    store.repositories = {"octo/one": 11, "octo/two": 12}
    gh("secret", "set", "NEON_API_KEY", "--org", "octo", "--repos", "octo/one,octo/two", stdin="old")
    short = b'{"total_count": 2, "repositories": [{"id": 11}]}'
    store.fail(Fault(200, short), when=lambda request: request.query.get("page") == "1")
    store.fail(Fault(200, b'{"total_count": 2, "repositories": []}'), when=lambda request: "page" in request.query)
    with pytest.raises(SinkError, match="all repositories"):
        sink_at("github-org:octo/NEON_API_KEY").write(key(), "key 12")
    assert store.places["orgs/octo/actions"]["NEON_API_KEY"].value == b"old"


def test_a_new_secret_of_an_organization_is_for_private_repositories(store: GitHubStore):
    sink_at("github-org:octo/NEON_API_KEY").write(key(), "key 12")
    assert store.places["orgs/octo/actions"]["NEON_API_KEY"].visibility == "private"


@pytest.mark.parametrize("given", ["address", "options"])
@pytest.mark.parametrize("wanted", ["all", "private"])
def test_who_may_use_a_secret_of_an_organization_may_be_said(store: GitHubStore, given: str, wanted: str):
    """For a new one and for one that is there; another process that finishes the rotation knows it too."""
    place = store.places["orgs/octo/actions"]
    written = f"github-org:octo/NEON_API_KEY?visibility={wanted}"
    sink = sink_at(written) if given == "address" else sink_at("github-org:octo/NEON_API_KEY", visibility=wanted)
    assert sink == sink_at("github-org:octo/NEON_API_KEY")
    for _ in range(2):
        GitHubSink.parse(sink.describe(), sink.options).write(key(), "key 12")
        assert place["NEON_API_KEY"].visibility == wanted
        sink_at("github-org:octo/NEON_API_KEY", visibility="all").write(key(), "key 12")


@pytest.mark.parametrize(
    "address",
    [
        "github-org:octo/NEON_API_KEY?visibility=selected",
        "github-org:octo/NEON_API_KEY?visibility=",
        "github:octo/shop/NEON_API_KEY?visibility=all",
    ],
)
def test_a_visibility_that_cannot_be_meant(address: str):
    with pytest.raises(PolicyError):
        sink_at(address)


# What GitHub says


def test_the_public_key_is_asked_for_each_time(store: GitHubStore):
    sink = sink_at()
    sink.write(key(b"one"), "key 1")
    store.add("repos/octo/shop/actions")
    sink.write(key(b"two"), "key 2")
    assert store.places["repos/octo/shop/actions"]["NEON_API_KEY"].value == b"two"


@pytest.mark.parametrize("text", ["", "AAAA", "not base64!", None, 7])
def test_a_public_key_that_is_none(store: GitHubStore, text: Any):
    store.fail(Fault(200, json.dumps({"key_id": "1", "key": text}).encode()))
    with pytest.raises(SinkUnreachable):
        sink_at().write(key(), "key 1")
    assert store.places["repos/octo/shop/actions"] == {}


def test_a_public_key_that_seals_nothing_shows_nothing(store: GitHubStore):
    """A point of small order: libsodium refuses it when the value is at hand."""
    store.fail(Fault(200, json.dumps({"key_id": "1", "key": "A" * 43 + "="}).encode()))
    value = secrets.token_hex(32).encode()
    with pytest.raises(SinkError, match="sealed") as caught:
        sink_at().write(key(value), "key 1")
    assert not leaks(shown(caught.value), value)
    assert caught.value.__context__ is None


def test_a_place_that_is_not_there_is_not_a_secret_that_is_not_there(store: GitHubStore):
    assert sink_at().metadata() is None
    for action in (GitHubSink.metadata, GitHubSink.check):
        with pytest.raises(SinkNotFound):
            action(sink_at("github:octo/kiosk/NEON_API_KEY"))


def test_deleting(store: GitHubStore):
    sink = sink_at()
    sink.delete()
    sink.write(key(), "key 1")
    sink.delete()
    assert sink.metadata() is None


def test_a_rate_limit_comes_as_403(store: GitHubStore):
    """It is no refusal: it is waited for, or said with the time that it takes."""
    store.fail(Fault(403, b"{}", {"Retry-After": "0"}), times=2)
    sink_at().write(key(), "key 1")
    store.fail(Fault(403, b"{}", {"Retry-After": "900", "X-RateLimit-Remaining": "0"}))
    with pytest.raises(SinkUnreachable, match="900 s"):
        sink_at().write(key(), "key 1")


def test_what_a_classic_token_may_not_do_is_said_before_anything_is_written(store: GitHubStore):
    store.scopes = "gist, read:org"
    with pytest.raises(SinkRefused, match="repo"):
        sink_at().check()
    with pytest.raises(SinkRefused, match="admin:org"):
        sink_at("github-org:octo/NEON_API_KEY").check()
    store.scopes = "repo, admin:org"
    assert "may write" in sink_at().check()
    store.scopes = None
    assert "whether it may write" in sink_at().check()


def test_without_pynacl_it_says_what_to_install(store: GitHubStore, monkeypatch: pytest.MonkeyPatch):
    """Before GitHub is asked for anything."""
    monkeypatch.setitem(sys.modules, "nacl.public", None)
    for action in (GitHubSink.check, lambda sink: sink.write(key(), "key 1")):
        with pytest.raises(SinkError, match="PyNaCl") as caught:
            action(sink_at())
        assert "lamplighter[keys]" in (caught.value.hint or "")
    assert store.requests == []


# Our own credentials


def test_the_token_that_gh_keeps_comes_over_a_pipe(store: GitHubStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """`gh` is asked with the host, and sees no token of the environment."""
    monkeypatch.delenv("GH_TOKEN")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GH_CONFIG_DIR", str(tmp_path / "gh"))
    monkeypatch.setenv("PATH", f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(SinkRefused, match="no token") as caught:
        sink_at().check()
    assert "gh auth login" in (caught.value.hint or "")
    hosts = tmp_path / "gh" / "hosts.yml"
    hosts.parent.mkdir(exist_ok=True)
    hosts.write_text(f"127.0.0.1:\n    oauth_token: {store.token}\n    user: octo\n")
    hosts.chmod(stat.S_IRUSR | stat.S_IWUSR)
    sink_at().write(key(), "key 1")
    assert store.places["repos/octo/shop/actions"]["NEON_API_KEY"].value == b"napi_0123456789"


def test_a_token_for_github_is_not_shown_to_others(store: GitHubStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """A server of one's own gets its own token, as with gh."""
    monkeypatch.setenv("GH_CONFIG_DIR", str(tmp_path))
    monkeypatch.delenv("GITHUB_API_URL")
    elsewhere = sink_at(api_url="https://github.example.org/api/v3")
    with pytest.raises(SinkRefused, match="no token") as caught:
        elsewhere.check()
    assert "GH_ENTERPRISE_TOKEN" in (caught.value.hint or "")
    assert store.requests == []


@pytest.mark.parametrize("token", ["two words", "line\nHost: elsewhere", "d\u00e9j\u00e0", "\x00"])
def test_a_token_that_no_header_can_hold_is_not_shown(store: GitHubStore, monkeypatch: pytest.MonkeyPatch, token: str):
    monkeypatch.setattr(os, "environ", {**os.environ, "GH_TOKEN": token})
    with pytest.raises(SinkRefused, match="GH_TOKEN holds no token") as caught:
        sink_at().check()
    assert token not in str(caught.value)
    assert store.requests == []


# Addresses


@pytest.mark.parametrize(
    "address",
    [
        "github:octo/NEON_API_KEY",
        "github:octo/shop/more/NEON_API_KEY",
        "github:octo/shop/1KEY",
        "github:octo/shop/GITHUB_KEY",
        "github:octo/../KEY",
        "github:oc to/shop/KEY",
        "github-env:octo/shop/KEY",
        "github-env:octo/shop//KEY",
        "github-org:octo/shop/KEY",
        "github-org:KEY",
        "github:octo/shop/KEY?colour=red",
        "github:octo/shop/KEY?api_url=ftp://example.org",
        "github:octo/shop/KEY?api_url=https://user:word@example.org",
    ],
)
def test_addresses_that_cannot_be_meant(address: str):
    with pytest.raises(PolicyError):
        GitHubSink.parse(address, {})


def test_equal_places_have_equal_addresses(store: GitHubStore, monkeypatch: pytest.MonkeyPatch):
    """GitHub writes names in capitals; where the API is belongs to the place."""
    assert sink_at("github:octo/shop/neon_api_key") == sink_at()
    assert sink_at("github-env:octo/shop/eu/north/KEY").describe().startswith("github-env:octo/shop/eu/north/KEY?")
    here = sink_at()
    monkeypatch.delenv("GITHUB_API_URL")
    assert GitHubSink.parse(here.describe(), here.options) == here
    assert sink_at().describe() == "github:octo/shop/NEON_API_KEY"
    assert sink_at() != here
