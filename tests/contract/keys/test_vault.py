"""The sink of Vault and OpenBao, against the real OpenBao."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from contract.keys.sink_contract import MARKER, SinkContract
from lamplighter.keys.errors import PolicyError, SinkError, SinkNotFound, SinkRefused, SinkUnreachable
from lamplighter.keys.sinks.vault import VaultSink
from lamplighter.keys.value import KeyBuffer
from support.stores.failing import STATUSES, Case, HttpFailures, changes
from support.stores.leaks import leaks, logged, shown
from support.stores.server import Fault
from support.stores.vault import ROOT, Front, OpenBao, openbao


@pytest.fixture(scope="module")
def bao() -> Iterator[OpenBao]:
    with openbao() as server:
        yield server


@pytest.fixture(autouse=True)
def environment(bao: OpenBao, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BAO_ADDR", "BAO_TOKEN", "VAULT_NAMESPACE", "BAO_NAMESPACE", "VAULT_CACERT", "BAO_CACERT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("VAULT_ADDR", bao.url)
    monkeypatch.setenv("VAULT_TOKEN", ROOT)


@pytest.fixture
def path() -> str:
    return f"team/{secrets.token_hex(6)}"


def sink_at(path: str, field: str = "api_key") -> VaultSink:
    return VaultSink.parse(f"vault:secret/{path}#{field}", {})


def key(text: bytes = b"napi_0123456789") -> KeyBuffer:
    return KeyBuffer(bytearray(text))


def content(found: KeyBuffer | None) -> bytes | None:
    if found is None:
        return None
    with found, found.reveal() as view:
        return bytes(view)


class TestContract(SinkContract):
    @pytest.fixture
    def sink(self, bao: OpenBao, path: str) -> VaultSink:
        bao.put(path, user="somebody")
        bao.put(f"{path}/below", api_key="another")
        return sink_at(path)

    @pytest.fixture
    def held(self, bao: OpenBao, path: str) -> Callable[[], bytes | None]:
        def held() -> bytes | None:
            text = bao.fields(path).get("api_key")
            return None if text is None else text.encode()

        return held

    @pytest.fixture
    def neighbours(self, bao: OpenBao, path: str) -> Callable[[], object]:
        return lambda: ({**bao.fields(path), "api_key": ""}, bao.fields(f"{path}/below"))


class TestFailures(HttpFailures):
    """With a server before OpenBao that answers as the worst of stores."""

    @pytest.fixture
    def case(self, bao: OpenBao, path: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Case]:
        front = Front(bao)
        token = bao.token('path "*" { capabilities = ["create", "read", "update", "patch", "delete"] }')
        monkeypatch.setenv("VAULT_ADDR", front.url)
        monkeypatch.setenv("VAULT_TOKEN", token)
        sink = sink_at(path)
        sink.timeout = 1.0
        sink.write(key(), MARKER)
        front.requests.clear()
        yield Case(front, sink, f"napi_{secrets.token_hex(32)}".encode(), token.encode())
        front.close()

    @pytest.mark.parametrize("status", [each for each in STATUSES if each != 404])
    def test_a_status_has_its_class_and_nothing_of_the_body(self, case: Case, status: int):
        super().test_a_status_has_its_class_and_nothing_of_the_body(case, status)

    def test_nothing_there_is_no_failure_of_a_look(self, case: Case):
        case.store.fail(Fault(404, case.echo()))
        assert case.sink.metadata() is None
        assert case.sink.read_back() is None
        for action in (case.write, case.sink.check):
            assert type(self.fails(case, action)) is SinkNotFound

    def test_the_code_of_the_store_is_shown(self, case: Case):
        """It has none: what it says are sentences."""
        case.store.fail(Fault(400, b'{"errors": ["it was bad"], "code": "bad_value"}'), when=changes)
        error = str(self.fails(case, case.write))
        assert error.endswith(": HTTP 400")

    def test_a_token_that_the_store_does_not_know_is_refused(self, case: Case):
        case.store.token = "another"
        for action in (case.write, case.sink.check, case.sink.metadata, case.sink.read_back):
            error = self.fails(case, action)
            assert type(error) is SinkRefused
            assert error.hint

    def test_no_url_ever_holds_the_value(self, case: Case):
        case.write()
        for request in case.store.requests:
            headers = {name: text for name, text in request.headers.items() if name != "x-vault-token"}
            assert not leaks(f"{request.path} {request.query} {headers}", case.value, case.token)

    def test_a_field_that_is_no_text_is_no_key(self, case: Case, bao: OpenBao):
        path = case.sink.path  # type: ignore[attr-defined]
        bao.ask("POST", f"secret/data/{path}", {"data": {"api_key": {"inner": case.value.decode()}}})
        assert type(self.fails(case, case.sink.read_back)) is SinkUnreachable

    @pytest.mark.parametrize("body", [b'{"data": 1}', b'{"data": {"current_version": "x"}}', b'{"data": null}'])
    def test_answers_of_the_wrong_shape(self, case: Case, body: bytes):
        case.store.fail(Fault(200, body))
        for action in (case.write, case.sink.metadata):
            assert type(self.fails(case, action)) is SinkUnreachable

    def test_a_comment_that_may_not_be_kept_does_not_matter(self, case: Case):
        case.store.fail(Fault(403, case.echo()), when=lambda each: each.method == "PATCH" and "metadata" in each.path)
        case.write()
        assert content(case.sink.read_back()) == case.value


def test_a_new_secret_has_the_value_and_the_marker(bao: OpenBao, path: str):
    sink = sink_at(path)
    assert sink.metadata() is None
    assert sink.read_back() is None
    receipt = sink.write(key(), MARKER)
    assert bao.fields(path) == {"api_key": "napi_0123456789"}
    assert receipt.version == "1"
    assert sink.metadata() == receipt
    _, known = bao.ask("GET", f"secret/metadata/{path}")
    assert known["data"]["custom_metadata"] == {"lamplighter.api_key": MARKER}


def test_other_fields_and_comments_stay(bao: OpenBao, path: str):
    bao.put(path, user="somebody", api_key="old")
    bao.ask("POST", f"secret/metadata/{path}", {"custom_metadata": {"owner": "team"}})
    sink_at(path).write(key(), MARKER)
    sink_at(path, "second").write(key(b"another"), MARKER)
    assert bao.fields(path) == {"user": "somebody", "api_key": "napi_0123456789", "second": "another"}
    _, known = bao.ask("GET", f"secret/metadata/{path}")
    assert known["data"]["custom_metadata"] == {
        "owner": "team",
        "lamplighter.api_key": MARKER,
        "lamplighter.second": MARKER,
    }


@pytest.mark.parametrize("text", [b"'\"\\\n\t$`{}", "é🔑\u2028".encode(), b"x" * 65_536, b" ", b"null"])
def test_awkward_values_come_back_as_they_were(path: str, text: bytes):
    sink = sink_at(path)
    sink.write(key(text), MARKER)
    assert content(sink.read_back()) == text


def test_bytes_that_are_no_text_are_refused(bao: OpenBao, path: str):
    with pytest.raises(SinkError, match="UTF-8"):
        sink_at(path).write(key(b"\xff\xfe"), MARKER)
    assert bao.fields(path) == {}


def test_a_write_that_is_overtaken_changes_nothing(bao: OpenBao, path: str, monkeypatch: pytest.MonkeyPatch):
    """`cas`: the other's value stays, for a new secret and for one that is there."""
    front = Front(bao)
    monkeypatch.setenv("VAULT_ADDR", front.url)
    for text in ("first", "second"):
        front.meanwhile = [lambda text=text: bao.put(path, api_key=text)]
        with pytest.raises(SinkError, match="at the same time"):
            sink_at(path).write(key(), MARKER)
        assert bao.fields(path) == {"api_key": text}
    front.meanwhile = [lambda: bao.ask("DELETE", f"secret/data/{path}")]
    sink_at(path).write(key(), MARKER)
    assert bao.fields(path) == {"api_key": "napi_0123456789"}
    front.close()


def test_the_previous_value_is_the_one_that_differs(bao: OpenBao, path: str):
    sink = sink_at(path)
    sink.write(key(b"one"), MARKER)
    assert sink.previous() is None
    sink.write(key(b"two"), MARKER)
    bao.put(path, user="somebody")
    assert content(sink.previous()) == b"one"
    bao.ask("PUT", f"secret/destroy/{path}", {"versions": [1]})
    assert sink.previous() is None


def test_what_was_deleted_or_destroyed_is_not_there_and_can_be_written_again(bao: OpenBao, path: str):
    sink = sink_at(path)
    for index, (method, url, body) in enumerate(
        [("DELETE", f"secret/data/{path}", None), ("PUT", f"secret/destroy/{path}", {"versions": [2]})]
    ):
        sink.write(key(b"%d" % index), MARKER)
        assert bao.ask(method, url, body)[0] in (200, 204)
        assert sink.metadata() is None
        assert sink.read_back() is None
    assert content(sink.previous()) is None or content(sink.previous()) == b"0"
    sink.write(key(b"again"), MARKER)
    assert content(sink.read_back()) == b"again"


def test_versions_that_will_be_deleted_later_are_still_there(bao: OpenBao, path: str):
    bao.ask("POST", f"secret/metadata/{path}", {"delete_version_after": "1h"})
    bao.put(path, other="stays")
    sink = sink_at(path)
    sink.write(key(), MARKER)
    assert bao.fields(path) == {"other": "stays", "api_key": "napi_0123456789"}
    assert sink.metadata() is not None


def test_delete_takes_the_field_alone(bao: OpenBao, path: str):
    bao.put(path, user="somebody")
    sink = sink_at(path)
    sink.write(key(), MARKER)
    sink.delete()
    assert bao.fields(path) == {"user": "somebody"}
    assert sink.metadata() is None
    sink.delete()
    alone = sink_at(f"{path}-alone")
    alone.delete()
    alone.write(key(), MARKER)
    alone.delete()
    assert bao.ask("GET", f"secret/data/{path}-alone")[0] == 404


def test_a_token_with_the_rights_that_are_documented_is_enough(bao: OpenBao, path: str, monkeypatch):
    policy = f"""
        path "secret/data/{path}" {{ capabilities = ["create", "read", "update", "patch"] }}
        path "secret/metadata/{path}" {{ capabilities = ["read"] }}
    """
    monkeypatch.setenv("VAULT_TOKEN", bao.token(policy))
    sink = sink_at(path)
    sink.write(key(), MARKER)
    sink.write(key(b"second"), MARKER)
    assert content(sink.previous()) == b"napi_0123456789"
    assert sink.metadata() is not None


def test_a_token_without_patch_is_refused_before_anything_is_done(bao: OpenBao, path: str, monkeypatch):
    policy = f"""
        path "secret/data/{path}" {{ capabilities = ["create", "read", "update"] }}
        path "secret/metadata/{path}" {{ capabilities = ["read"] }}
        path "sys/capabilities-self" {{ capabilities = ["update"] }}
    """
    monkeypatch.setenv("VAULT_TOKEN", bao.token(policy))
    with pytest.raises(SinkRefused, match="patch") as caught:
        sink_at(path).check()
    assert "capabilities" in (caught.value.hint or "")
    bao.put(path, user="somebody")
    with pytest.raises(SinkRefused, match="403"):
        sink_at(path).write(key(), MARKER)
    assert bao.fields(path) == {"user": "somebody"}


def test_an_engine_of_version_1_is_refused(bao: OpenBao):
    """It would take the same request, for a path that nobody reads."""
    assert bao.ask("POST", "sys/mounts/old", {"type": "kv"})[0] == 204
    sink = VaultSink.parse("vault:old/neon#api_key", {})
    for action in (sink.check, lambda: sink.write(key(), MARKER)):
        with pytest.raises(SinkNotFound, match="version 2"):
            action()
    assert bao.ask("GET", "old/data/neon")[0] == 404


def test_an_engine_whose_path_has_a_slash(bao: OpenBao):
    assert bao.ask("POST", "sys/mounts/of/team", {"type": "kv", "options": {"version": "2"}})[0] == 204
    sink = VaultSink.parse("vault:of/team/neon#api_key?mount=of/team", {})
    sink.write(key(), MARKER)
    assert bao.ask("GET", "of/team/data/neon")[1]["data"]["data"] == {"api_key": "napi_0123456789"}
    assert VaultSink.parse(sink.describe(), sink.options) == sink


def test_a_namespace_is_sent_along(bao: OpenBao, path: str, monkeypatch: pytest.MonkeyPatch):
    assert bao.ask("POST", "sys/namespaces/tenant", {})[0] == 200
    sink = VaultSink.parse(f"vault:secret/{path}#api_key?namespace=tenant", {})
    with pytest.raises(SinkError):
        sink.check()
    assert bao.ask("POST", "tenant/sys/mounts/secret", {"type": "kv", "options": {"version": "2"}})[0] == 204
    sink.write(key(), MARKER)
    assert bao.fields(path) == {}
    monkeypatch.setenv("VAULT_NAMESPACE", "tenant")
    assert content(sink_at(path).read_back()) == b"napi_0123456789"
    assert sink_at(path) != sink


def test_a_sealed_vault_says_so():
    """On a server of its own: the others stay open."""
    with openbao() as own, pytest.MonkeyPatch.context() as patch:
        patch.setenv("VAULT_ADDR", own.url)
        assert own.ask("PUT", "sys/seal")[0] == 204
        sink = sink_at("team/neon")
        for action in (sink.check, lambda: sink.write(key(), MARKER)):
            with pytest.raises(SinkUnreachable, match="503") as caught:
                action()
            assert "unseal" in (caught.value.hint or "")


def test_the_token_of_a_login_is_found(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("VAULT_TOKEN")
    with pytest.raises(SinkRefused) as caught:
        sink_at(path).check()
    assert "vault login" in (caught.value.hint or "")
    (tmp_path / ".vault-token").write_text(f"{ROOT}\n")
    sink_at(path).check()
    monkeypatch.setenv("BAO_TOKEN", "another")
    with pytest.raises(SinkRefused, match="403"):
        sink_at(path).check()


def test_a_token_that_is_none_is_not_shown(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("VAULT_TOKEN")
    token = secrets.token_hex(20)
    (tmp_path / ".vault-token").write_text(f"{token} {token}")
    with logged() as log, pytest.raises(SinkRefused) as caught:
        sink_at(path).write(key(), MARKER)
    assert "no token" in str(caught.value)
    assert not leaks(str(caught.value) + log.getvalue(), token.encode())


def test_variables_of_openbao_are_read_too(bao: OpenBao, path: str, monkeypatch: pytest.MonkeyPatch):
    for name, text in (("ADDR", bao.url), ("TOKEN", ROOT)):
        monkeypatch.delenv(f"VAULT_{name}")
        monkeypatch.setenv(f"BAO_{name}", text)
    sink_at(path).write(key(), MARKER)
    assert bao.fields(path) == {"api_key": "napi_0123456789"}


def test_a_rotation_is_not_resumed_with_another_server(bao: OpenBao, path: str, monkeypatch: pytest.MonkeyPatch):
    """The environment of the process that resumes it may name another one, and its token is for that."""
    begun = sink_at(path)
    address, options = begun.describe(), dict(begun.options)
    again = VaultSink.parse(address, options)
    assert (again, again.options) == (begun, options)
    again.write(key(), MARKER)
    front = Front(bao)
    monkeypatch.setenv("VAULT_ADDR", front.url)
    with pytest.raises(SinkRefused, match="begun with") as caught:
        VaultSink.parse(address, options).write(key(b"other"), MARKER)
    assert "as they were" in (caught.value.hint or "")
    assert front.requests == []
    front.close()


def test_no_address_of_a_vault(path: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("VAULT_ADDR")
    with pytest.raises(SinkError, match="which vault") as caught:
        sink_at(path).check()
    assert "VAULT_ADDR" in (caught.value.hint or "")
    monkeypatch.setenv("VAULT_ADDR", "http://vault.example:8200")
    with pytest.raises(SinkError, match="https"):
        sink_at(path).write(key(), MARKER)
    monkeypatch.setenv("VAULT_ADDR", "http://127.0.0.1:1 napi_x")
    with pytest.raises(SinkError):
        sink_at(path).check()


def test_an_error_in_a_write_shows_neither_value_nor_token(bao: OpenBao, path: str, monkeypatch: pytest.MonkeyPatch):
    value = secrets.token_hex(32).encode()
    monkeypatch.setenv("VAULT_TOKEN", secrets.token_hex(20))
    with logged() as log, pytest.raises(SinkRefused) as caught:
        sink_at(path).write(key(value), MARKER)
    assert not leaks(shown(caught.value) + log.getvalue(), value)


@pytest.mark.parametrize(
    "address",
    [
        "vault:secret#field",
        "vault:secret/path",
        "vault:/path#field",
        "vault:secret/#field",
        "vault:secret/a/../b#field",
        "vault:secret/./b#field",
        "vault:secret/a b#field",
        "vault:secret/path#",
        "vault:secret/path#a#b",
        "vault:secret/path#field?mount=other",
        "vault:secret/path#field?address=ftp://vault",
        "vault:secret/path#field?address=https://user:word@vault",
        "vault:secret/path#field?colour=red",
    ],
)
def test_addresses_that_cannot_be_meant(address: str):
    with pytest.raises(PolicyError):
        VaultSink.parse(address, {})


def test_servers_in_the_address_make_sinks_different(bao: OpenBao, monkeypatch: pytest.MonkeyPatch):
    one = VaultSink.parse("vault:secret/neon#api_key", {"address": "https://a.example"})
    other = VaultSink.parse("vault:secret/neon#api_key?address=https://b.example", {})
    assert one != other
    assert one == VaultSink.parse(one.describe(), one.options)
    assert one.options == {}
