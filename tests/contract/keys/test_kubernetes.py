"""The sink of Kubernetes Secrets, against a server with the shapes of Kubernetes' API."""

from __future__ import annotations

import base64
import json
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from contract.keys.sink_contract import MARKER, SinkContract, content, fresh
from lamplighter.keys import harden
from lamplighter.keys.errors import PolicyError, SinkError, SinkNotFound, SinkRefused, SinkUnreachable, SinkUnsafe
from lamplighter.keys.sinks import kubeconfig as reaching
from lamplighter.keys.sinks.kubernetes import KubernetesSink
from lamplighter.keys.value import KeyBuffer
from support.stores.failing import STATUSES, Case, HttpFailures
from support.stores.kubernetes import Authority, KubernetesStore, kubeconfig, with_tls
from support.stores.leaks import leaks, logged, shown
from support.stores.server import Fault


@pytest.fixture
def store() -> Iterator[KubernetesStore]:
    store = KubernetesStore(token=secrets.token_hex(20))
    yield store
    store.close()


@pytest.fixture(autouse=True)
def environment(store: KubernetesStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    config = kubeconfig(tmp_path / "config.yaml", store.url, {"token": store.token})
    monkeypatch.setenv("KUBECONFIG", str(config))


def sink_at(address: str = "kubernetes:default/neon#api-key") -> KubernetesSink:
    return KubernetesSink.parse(address, {})


def key(text: bytes = b"napi_0123456789") -> KeyBuffer:
    return KeyBuffer(bytearray(text))


class TestContract(SinkContract):
    awkward = (*SinkContract.awkward, b"\xff\x00\xfe", b"\n", b"y" * 40_000)

    @pytest.fixture
    def sink(self, store: KubernetesStore) -> KubernetesSink:
        store.add("neon", user="somebody")
        store.add("other", **{"api-key": "another"})
        return sink_at()

    @pytest.fixture
    def held(self, store: KubernetesStore) -> Callable[[], bytes | None]:
        return lambda: store.plain("neon", "api-key")

    @pytest.fixture
    def neighbours(self, store: KubernetesStore) -> Callable[[], Any]:
        return lambda: (store.plain("neon", "user"), store.secrets["default", "other"])


class TestFailures(HttpFailures):
    @pytest.fixture(params=[False, True], ids=["new", "there"])
    def case(self, store: KubernetesStore, request: pytest.FixtureRequest) -> Case:
        sink = sink_at()
        sink.timeout = 1.0
        if request.param:
            store.add("neon", **{"api-key": "old"})
        return Case(store, sink, fresh(), store.token.encode())

    @pytest.mark.parametrize("status", [each for each in STATUSES if each != 404])
    def test_a_status_has_its_class_and_nothing_of_the_body(self, case: Case, status: int):
        super().test_a_status_has_its_class_and_nothing_of_the_body(case, status)

    def test_nothing_there_is_no_failure_of_a_look(self, case: Case):
        case.store.fail(Fault(404, case.echo()))
        assert case.sink.metadata() is None
        assert case.sink.read_back() is None
        assert type(self.fails(case, case.write)) is SinkNotFound

    @pytest.mark.parametrize(
        "body",
        [
            {"metadata": {"resourceVersion": 5}, "data": {"api-key": "!!!!"}},
            {"metadata": [], "data": {"api-key": "YQ"}},
            {"metadata": None, "data": {"api-key": ["napi_0123456789"]}},
            {"data": "napi_0123456789"},
        ],
    )
    def test_answers_of_the_wrong_shape(self, case: Case, body: Any):
        case.store.fail(Fault(200, json.dumps(body).encode()))
        assert type(self.fails(case, case.sink.read_back)) is SinkUnreachable


def test_a_secret_that_is_not_there_is_made(store: KubernetesStore):
    receipt = sink_at().write(key(), MARKER)
    made = store.secrets["default", "neon"]
    assert (made["kind"], made["type"]) == ("Secret", "Opaque")
    assert store.plain("neon", "api-key") == b"napi_0123456789"
    assert made["metadata"]["annotations"]["lamplighter.dev/api-key"] == MARKER
    assert receipt.version == made["metadata"]["resourceVersion"]
    sink_at().delete()
    assert store.secrets == {}


def test_a_merge_patch_changes_one_key_and_one_annotation(store: KubernetesStore):
    there = store.add("neon", user="somebody")
    there["type"] = "kubernetes.io/basic-auth"
    there["metadata"]["annotations"] = {"owner": "team"}
    sink_at().write(key(), MARKER)
    assert (store.plain("neon", "user"), store.plain("neon", "api-key")) == (b"somebody", b"napi_0123456789")
    assert there["metadata"]["annotations"] == {"owner": "team", "lamplighter.dev/api-key": MARKER}
    assert there["type"] == "kubernetes.io/basic-auth"
    sink_at().delete()
    assert there["data"].keys() == {"user"}
    assert there["metadata"]["annotations"] == {"owner": "team"}


def test_the_last_change_of_any_manager_is_when_it_changed(store: KubernetesStore):
    sink = sink_at()
    sink.write(key(), MARKER)
    first = sink.metadata()
    store.touch(store.secrets["default", "neon"], "kubectl")
    second = sink.metadata()
    assert first is not None
    assert second is not None
    assert first.updated_at is not None
    assert second.updated_at is not None
    assert second.updated_at > first.updated_at


def test_who_changes_it_meanwhile_keeps_what_was_changed(store: KubernetesStore):
    """409: it is read again, and patched again."""
    there = store.add("neon", user="somebody")

    def rename() -> None:
        there["data"]["user"] = base64.b64encode(b"renamed").decode()
        store.touch(there, "controller")

    store.meanwhile = [rename, rename]
    sink_at().write(key(), MARKER)
    assert (store.plain("neon", "user"), store.plain("neon", "api-key")) == (b"renamed", b"napi_0123456789")
    store.meanwhile = [rename] * 10
    with pytest.raises(SinkError, match="409"):
        sink_at().write(key(b"second"), MARKER)
    assert store.plain("neon", "api-key") == b"napi_0123456789"


def test_who_makes_or_deletes_it_meanwhile_does_not_matter(store: KubernetesStore):
    store.meanwhile = [lambda: store.add("neon", user="somebody")]
    sink_at().write(key(), MARKER)
    assert (store.plain("neon", "user"), store.plain("neon", "api-key")) == (b"somebody", b"napi_0123456789")
    store.meanwhile = [store.secrets.clear]
    sink_at().write(key(b"second"), MARKER)
    assert store.plain("neon", "api-key") == b"second"


def test_what_is_immutable_is_refused_before_anything_is_sent(store: KubernetesStore):
    store.add("neon")["immutable"] = True
    for action in (sink_at().check, lambda: sink_at().write(key(), MARKER)):
        with pytest.raises(SinkError, match="immutable"):
            action()
    assert not [each for each in store.requests if each.method == "PATCH"]


def test_a_namespace_that_is_not_there(store: KubernetesStore):
    with pytest.raises(SinkNotFound):
        sink_at("kubernetes:nowhere/neon#api-key").write(key(), MARKER)


@pytest.mark.parametrize("verb", ["get", "patch", "create"])
def test_rights_are_asked_for_beforehand(store: KubernetesStore, verb: str):
    assert "will be made" in sink_at().check()
    store.forbidden = {verb}
    with pytest.raises(SinkRefused, match=verb) as caught:
        sink_at().check()
    assert "role needs" in (caught.value.hint or "")
    assert store.secrets == {}


def test_a_value_that_is_too_long(store: KubernetesStore):
    with pytest.raises(SinkError, match="too long"):
        sink_at().write(key(b"x" * 60_000), MARKER)
    assert store.requests == []


# Which cluster


@pytest.fixture
def authority() -> Authority:
    return Authority()


@pytest.fixture
def behind_tls(store: KubernetesStore, authority: Authority, tmp_path: Path) -> Iterator[str]:
    with with_tls(store, authority.server(tmp_path)) as url:
        yield url


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@pytest.fixture
def use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes a kubeconfig, and has it used."""

    def use(server: str, user: dict[str, Any], **cluster: Any) -> None:
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path / "used.yaml", server, user, **cluster)))

    return use


@pytest.fixture(params=["inline", "beside"])
def inline(request: pytest.FixtureRequest, store: KubernetesStore) -> bool:
    store.by_certificate = True
    return request.param == "inline"


def test_a_client_certificate(behind_tls: str, authority: Authority, tmp_path: Path, use, inline: bool):
    """From the kubeconfig itself, or from files beside it; the key is in no other file at any time."""
    certificate, private = authority.issue("me")
    if inline:
        user = {"client-certificate-data": encoded(certificate), "client-key-data": encoded(private)}
        cluster = {"certificate-authority-data": encoded(authority.pem)}
    else:
        for name, text in (("me.pem", certificate), ("me.key", private), ("ca.pem", authority.pem)):
            (tmp_path / name).write_text(text)
        user = {"client-certificate": "me.pem", "client-key": "me.key"}
        cluster = {"certificate-authority": "ca.pem"}
    use(behind_tls, user, **cluster)
    before = set(tmp_path.iterdir())
    with harden.hardened():
        sink_at().write(key(), MARKER)
        assert content(sink_at().read_back()) == b"napi_0123456789"
    assert set(tmp_path.iterdir()) == before


def test_a_cluster_whose_certificate_is_not_trusted(behind_tls: str, store: KubernetesStore, use):
    use(behind_tls, {"token": store.token})
    with pytest.raises(SinkUnreachable, match="not trusted"):
        sink_at().write(key(), MARKER)
    use(behind_tls, {"token": store.token}, **{"certificate-authority-data": encoded("none")})
    with pytest.raises(SinkError, match="certificates"):
        sink_at().write(key(), MARKER)
    assert store.requests == []


def test_a_certificate_of_another_name(store: KubernetesStore, authority: Authority, tmp_path: Path, use):
    store.by_certificate = True
    certificate, private = authority.issue("me")
    user = {"client-certificate-data": encoded(certificate), "client-key-data": encoded(private)}
    with with_tls(store, authority.server(tmp_path, "cluster.example")) as url:
        known = {"certificate-authority-data": encoded(authority.pem)}
        use(url, user, **known)
        with pytest.raises(SinkUnreachable, match="not trusted"):
            sink_at().check()
        use(url, user, **known, **{"tls-server-name": "cluster.example"})
        assert sink_at().check()


def test_a_pod_uses_its_service_account(store: KubernetesStore, authority: Authority, tmp_path: Path, monkeypatch):
    pod = tmp_path / "serviceaccount"
    pod.mkdir()
    (pod / "token").write_text(f"{store.token}\n")
    (pod / "ca.crt").write_text(authority.pem)
    monkeypatch.setattr(reaching, "_POD", pod)
    monkeypatch.delenv("KUBECONFIG")
    context = authority.server(tmp_path)
    context.verify_mode = reaching.ssl.CERT_NONE
    with with_tls(store, context) as url:
        host, _, port = url.removeprefix("https://").partition(":")
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)
        sink_at().write(key(), MARKER)
    assert store.plain("neon", "api-key") == b"napi_0123456789"


def program(path: Path, answer: Any, status: int = 0) -> Path:
    seen = f"tr '\\0' '\\n' </proc/$$/environ >{path}.env"
    path.write_text("\n".join(["#!/bin/sh", seen, "cat <<'E'", json.dumps(answer), "E", f"exit {status}"]))
    path.chmod(0o700)
    return path


def test_a_program_that_logs_in(store: KubernetesStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, use):
    """It sees what it needs of the environment, and no keys of Neon's."""
    monkeypatch.setenv("NEON_API_KEY", "napi_of_the_minter")
    monkeypatch.setenv("VAULT_TOKEN", "hvs.of-another-store")
    monkeypatch.setenv("AWS_PROFILE", "team")
    login = program(tmp_path / "login", {"kind": "ExecCredential", "status": {"token": store.token}})
    command = {"apiVersion": "client.authentication.k8s.io/v1", "command": str(login)}
    use(store.url, {"exec": {**command, "env": [{"name": "A", "value": "1"}]}})
    sink_at().write(key(), MARKER)
    assert store.plain("neon", "api-key") == b"napi_0123456789"
    seen = (tmp_path / "login.env").read_text()
    assert "AWS_PROFILE=team" in seen
    assert "A=1" in seen
    assert "napi_" not in seen
    assert "hvs." not in seen


@pytest.mark.parametrize("answer", [{}, [], {"status": {}}, {"status": {"clientKeyData": "x"}}, "text"])
def test_a_program_that_does_not_log_in(store: KubernetesStore, tmp_path: Path, use, answer: Any):
    login = program(tmp_path / "login", answer)
    use(store.url, {"exec": {"command": str(login)}})
    with pytest.raises(SinkRefused, match="nothing to log in with"):
        sink_at().check()
    program(tmp_path / "login", {"status": {"token": store.token}}, status=1)
    with pytest.raises(SinkRefused, match="nothing to log in with"):
        sink_at().check()


def test_a_context_of_the_address_is_used_and_tells_sinks_apart(store: KubernetesStore, tmp_path: Path, monkeypatch):
    other = KubernetesStore(token=secrets.token_hex(20))
    second = yaml.safe_load(kubeconfig(tmp_path / "b.yaml", other.url, {"token": other.token}).read_text())
    for plural, name in (("contexts", "prod"), ("clusters", "theirs"), ("users", "them")):
        second[plural][0]["name"] = name
    second["contexts"][0]["context"] = {"cluster": "theirs", "user": "them"}
    second["current-context"] = "prod"
    (tmp_path / "b.yaml").write_text(yaml.safe_dump(second))
    monkeypatch.setenv("KUBECONFIG", f"{os.environ['KUBECONFIG']}{os.pathsep}{tmp_path / 'b.yaml'}")
    chosen = sink_at("kubernetes:default/neon#api-key?context=prod")
    assert chosen != sink_at()
    chosen.write(key(), MARKER)
    assert other.plain("neon", "api-key") == b"napi_0123456789"
    assert store.secrets == {}
    # Begun in one context, and resumed when another is the current one.
    begun = sink_at()
    address, options = begun.describe(), dict(begun.options)
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path / 'b.yaml'}{os.pathsep}{tmp_path / 'config.yaml'}")
    KubernetesSink.parse(address, options).write(key(b"resumed"), MARKER)
    assert store.plain("neon", "api-key") == b"resumed"
    with pytest.raises(SinkError, match="no context 'gone'"):
        sink_at("kubernetes:default/neon#api-key?context=gone").check()
    other.close()


TOKEN = "token-0123456789abcdef"


@pytest.mark.parametrize(
    ("user", "cluster", "expected"),
    [
        ({"username": "me", "password": TOKEN}, {}, (SinkRefused, "neither")),
        ({}, {}, (SinkRefused, "neither")),
        ({"token": f"tok en {TOKEN}"}, {}, (SinkRefused, "no token")),
        ({"token": TOKEN}, {"insecure-skip-tls-verify": True}, (SinkUnsafe, "insecure")),
        ({"token": TOKEN}, {"proxy-url": "http://127.0.0.1:1"}, (SinkUnsafe, "proxy-url")),
        ({"token": TOKEN}, {"server": "http://cluster.example"}, (SinkUnsafe, "https")),
        ({"token": TOKEN}, {"server": ""}, (SinkError, "API")),
        ({"tokenFile": "nowhere"}, {}, (SinkRefused, "no token")),
    ],
)
def test_logins_that_are_not_safe(store: KubernetesStore, use, user, cluster, expected):
    """And none of them is shown."""
    kind, text = expected
    use(**{"server": store.url, "user": user, **cluster})
    with logged() as log, pytest.raises(kind, match=text) as caught:
        sink_at().write(key(), MARKER)
    leaked = leaks(shown(caught.value) + log.getvalue(), TOKEN.encode())
    assert not leaked
    assert store.requests == []


@pytest.mark.parametrize("text", ["", "[1]", "users: [token: napi_0123456789\n", "a: b: napi_0123456789", "users: 5"])
def test_files_that_are_no_kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str):
    (tmp_path / "odd.yaml").write_text(text)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "odd.yaml"))
    with pytest.raises(SinkError) as caught:
        sink_at().check()
    assert not leaks(shown(caught.value), b"napi_0123456789")


def test_without_a_cluster_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("KUBECONFIG")
    with pytest.raises(SinkError, match="no cluster") as caught:
        sink_at().check()
    assert "use-context" in (caught.value.hint or "")
    assert sink_at().options == {}


def test_a_kubeconfig_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path))
    assert stat.S_ISDIR(tmp_path.stat().st_mode)
    with pytest.raises(SinkError, match="cannot read"):
        sink_at().check()


@pytest.mark.parametrize(
    "address",
    [
        "kubernetes:default/neon",
        "kubernetes:neon#key",
        "kubernetes:default/neon#",
        "kubernetes:default/neon#a/b",
        "kubernetes:Default/neon#key",
        "kubernetes:default/../neon#key",
        "kubernetes:default/neon#key?colour=red",
        "kubernetes:default/-neon#key",
    ],
)
def test_addresses_that_cannot_be_meant(address: str):
    with pytest.raises(PolicyError):
        KubernetesSink.parse(address, {})
