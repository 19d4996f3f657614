"""A field of a secret in Vault or OpenBao, in a KV engine of version 2: `vault:MOUNT/PATH#FIELD`.

Writes go with `cas`, so that a change by somebody else at the same time is seen, and as PATCH, so that other fields
stay. The token needs create, read, update and patch on MOUNT/data/PATH, and read on MOUNT/metadata/PATH; with patch
there too, the marker is kept in `custom_metadata`.
"""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, Final, Self

from lamplighter.api.secret import Secret
from lamplighter.keys.errors import PolicyError, SinkError, SinkNotFound, SinkRefused
from lamplighter.keys.sinks.base import SOAK, Capabilities, Receipt, Sink
from lamplighter.keys.sinks.http import (
    TIMEOUT,
    VALUE,
    Answer,
    HttpStore,
    check_url,
    join_address,
    json_body,
    path_of,
    secret_of,
    split_address,
    time_of,
    token_from_environment,
)
from lamplighter.keys.value import KeyBuffer

_MERGE: Final = "application/merge-patch+json"
#: `was` is how a rotation that goes on later knows which server it began with; nobody writes it.
_OPTIONS: Final = frozenset({"address", "mount", "namespace", "was"})
_PATH: Final = re.compile(r"[^/#?\x00-\x20]+(/[^/#?\x00-\x20]+)+")
_DOTS: Final = re.compile(r"(?:^|/)\.\.?(?:/|$)")
_FIELD: Final = re.compile(r"[^#?\x00-\x20]{1,200}")
_TOKENS: Final = ("VAULT_TOKEN", "BAO_TOKEN")
_LOGIN: Final = "log in with `vault login` or `bao login`, or set VAULT_TOKEN"


@dataclass(frozen=True, slots=True, kw_only=True)
class _State:
    """The newest version, deleted ones too; 0 where there never was one."""

    version: int
    oldest: int
    created_at: datetime | None
    server_date: datetime | None


class VaultSink(Sink):
    """Options: `address` (otherwise VAULT_ADDR or BAO_ADDR), `namespace` (VAULT_NAMESPACE, BAO_NAMESPACE), `mount`.

    `mount` is for an engine whose own path has a slash in it.
    """

    kind: ClassVar[str] = "vault"

    def __init__(self, mount: str, path: str, field: str, options: Mapping[str, str]) -> None:
        self.mount = mount
        self.path = path
        self.field = field
        self._options = dict(options)
        self.timeout = TIMEOUT

    @classmethod
    def parse(cls, address: str, options: Mapping[str, str]) -> Self:
        _, place, given = split_address(address, options, _OPTIONS)
        path, mark, field = place.partition("#")
        mount, inner = _divided(path, given.get("mount"))
        if not mark or not _PATH.fullmatch(path) or not inner or _DOTS.search(path) or not _FIELD.fullmatch(field):
            raise PolicyError(
                f"{address!r} is no address of a vault: write vault:MOUNT/PATH#FIELD, as vault:secret/neon#api_key"
            )
        if "address" in given:
            check_url(given["address"], address)
        return cls(mount, inner, field, given)

    def describe(self) -> str:
        named = {name: self._options.get(name) for name in ("address", "mount", "namespace")}
        return join_address("vault", f"{self.mount}/{self.path}#{self.field}", named)

    @property
    def options(self) -> Mapping[str, str]:
        """Which server this is, where the address does not say it: no other process shall write to another one."""
        if "address" in self._options:
            return {}
        was = self._options.get("was") or _server_now()
        return {"was": was} if was else {}

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(readable=True, versioned=True, comment=True, effect="next read", soak=SOAK["next read"])

    def check(self) -> str:
        store = self._store()
        self._check_engine(store)
        data = f"{self.mount}/data/{self.path}"
        asked = json_body({"paths": [data]})
        with store.call("POST", "/v1/sys/capabilities-self", body=asked, allow=(403,)) as answer:
            held = set() if answer.status == 403 else set(_listed(answer.json().get(data)))
        missing = {"create", "patch", "read", "update"} - held
        if held and "root" not in held and missing:
            raise SinkRefused(
                f"the token has no {', '.join(sorted(missing))} on {data}",
                address=self.describe(),
                hint=_policy(data),
            )
        state = self._state(store)
        there = f"version {state.version} is there" if state.version else "nothing is there yet"
        return f"{store.base_url} lets us write {self.mount}/{self.path}; {there}"

    def write(self, value: KeyBuffer, marker: str) -> Receipt:
        store = self._store()
        state = self._state(store)
        if not state.version:
            # An engine of version 1 would take the same request for another path, and say yes.
            self._check_engine(store)
        receipt = self._put(store, state, value)
        # The value is there: a token that may not write comments is good enough.
        comment = json_body({"custom_metadata": {self._comment: marker}}, content_type=_MERGE)
        store.call("PATCH", self._at("metadata"), body=comment, allow=(400, 403, 404, 405)).wipe()
        return receipt

    def read_back(self) -> KeyBuffer | None:
        return self._read(self._store(), None)

    def metadata(self) -> Receipt | None:
        store = self._store()
        state = self._state(store)
        value = self._read(store, state.version) if state.version else None
        if value is None:
            return None
        value.wipe()
        return Receipt(version=str(state.version), updated_at=state.created_at, server_date=state.server_date)

    def previous(self) -> KeyBuffer | None:
        """The value that differs from the present one: other fields make versions too."""
        store = self._store()
        state = self._state(store)
        present = self._read(store, state.version) if state.version else None
        salt = os.urandom(16)
        mac = None if present is None else present.mac(salt)
        if present is not None:
            present.wipe()
        for version in range(state.version - 1, max(0, state.oldest - 1), -1):
            found = self._read(store, version)
            if found is not None and (mac is None or not found.matches(mac, salt)):
                return found
            if found is not None:
                found.wipe()
        return None

    def delete(self) -> None:
        store = self._store()
        state = self._state(store)
        if state.version and self._changed(store, "PATCH", state, None) is not None:
            # Older OpenBao and Vault do not say which fields there are: then an empty secret stays.
            with store.call("GET", self._at("subkeys"), allow=(403, 404, 405)) as answer:
                empty = answer.status == 200 and not _within(answer.json(), "data", "subkeys")
            if empty:
                store.call("DELETE", self._at("data"), allow=(403, 404)).wipe()

    # The API

    def _store(self) -> HttpStore:
        address = self.describe()
        url = (self._options.get("address") or _from_environment("ADDR")).rstrip("/")
        if not url:
            hint = "set VAULT_ADDR, as https://vault.example:8200"
            raise SinkError("which vault is not known", address=address, hint=hint)
        if self._options.get("was", _server_now()) != _server_now():
            # The token is for the other server.
            raise SinkRefused(
                f"this was begun with {self._options['was']}, and the environment names {_server_now()} now",
                address=address,
                hint="set VAULT_ADDR, VAULT_NAMESPACE and the token as they were",
            )
        headers = {"X-Vault-Request": "true"}
        if namespace := self._options.get("namespace") or _from_environment("NAMESPACE"):
            headers["X-Vault-Namespace"] = namespace
        try:
            return HttpStore(
                base_url=url,
                address=address,
                token=self._token,
                header="X-Vault-Token: ",
                headers=headers,
                hints={403: _policy(f"{self.mount}/data/{self.path}"), 503: "a sealed vault answers so: unseal it"},
                context=_context,
                timeout=self.timeout,
            )
        except PolicyError as error:
            why = error.message
        raise SinkError(why, address=address)

    def _token(self) -> Secret:
        if not any(os.environ.get(name) for name in _TOKENS) and (login := _login()):
            return secret_of(login.reveal(), "~/.vault-token", self.describe())
        return token_from_environment(_TOKENS, self.describe(), hint=_LOGIN)

    def _at(self, what: str) -> str:
        return path_of("v1", *self.mount.split("/"), what, *self.path.split("/"))

    @property
    def _comment(self) -> str:
        return f"lamplighter.{self.field}"[:128]

    def _check_engine(self, store: HttpStore) -> None:
        """Raises SinkNotFound where MOUNT is no KV engine of version 2."""
        with store.call("GET", path_of("v1", "sys", "internal", "ui", "mounts", *self.mount.split("/"))) as answer:
            known = _within(answer.json(), "data")
        if known.get("type") != "kv" or _within(known, "options").get("version") != "2":
            raise SinkNotFound(
                f"{self.mount} is no KV engine of version 2",
                address=self.describe(),
                hint="make one: vault secrets enable -version=2 -path=MOUNT kv",
            )

    def _state(self, store: HttpStore) -> _State:
        with store.call("GET", self._at("metadata"), allow=(404,)) as answer:
            date = answer.date
            known = {} if answer.status == 404 else _within(answer.json(), "data")
            status = answer.status
        version, oldest = known.get("current_version", 0), known.get("oldest_version", 0)
        if not isinstance(version, int) or not isinstance(oldest, int) or (status == 200 and not known):
            raise store.senseless(status)
        one = _within(known, "versions", str(version))
        return _State(
            version=version,
            oldest=oldest,
            created_at=time_of(one.get("created_time")),
            server_date=date,
        )

    def _put(self, store: HttpStore, state: _State, value: KeyBuffer) -> Receipt:
        """A version more, with the fields of the one before it."""
        receipt = self._changed(store, "PATCH", state, value) if state.version else None
        # After a version that was deleted, or that never was, there is nothing to keep.
        receipt = receipt or self._changed(store, "POST", state, value)
        if receipt is None:
            raise SinkNotFound("HTTP 404: there is no such engine", address=store.address, status=404)
        return receipt

    def _changed(self, store: HttpStore, method: str, state: _State, value: KeyBuffer | None) -> Receipt | None:
        """None for HTTP 404; without a value the field is removed."""
        content = {"options": {"cas": state.version}, "data": {self.field: None if value is None else VALUE}}
        media = _MERGE if method == "PATCH" else "application/json"
        body = json_body(content, value, content_type=media)
        with store.call(method, self._at("data"), body=body, allow=(400, 404)) as answer:
            status, date = answer.status, answer.date
            known = {} if status >= 300 else _within(answer.json(), "data")
            raced = status == 400 and _is_cas(answer)
        if status == 404:
            return None
        if raced:
            raise SinkError("somebody else changed it at the same time", address=store.address, hint="run it again")
        if status >= 300:
            raise SinkError(f"HTTP {status}", address=store.address, status=status)
        if not isinstance(known.get("version"), int):
            raise store.senseless(status)
        return Receipt(version=str(known["version"]), updated_at=time_of(known.get("created_time")), server_date=date)

    def _read(self, store: HttpStore, version: int | None) -> KeyBuffer | None:
        query = None if version is None else {"version": version}
        with store.call("GET", self._at("data"), query=query, allow=(404,)) as answer:
            return None if answer.status == 404 else answer.value("data", "data", self.field)


def _divided(path: str, mount: str | None) -> tuple[str, str]:
    """Mount and path; both empty when the path is not below the mount."""
    if mount is None:
        first, _, rest = path.partition("/")
        return first, rest
    inner = path.removeprefix(f"{mount}/")
    return (mount, inner) if inner != path else ("", "")


def _from_environment(name: str) -> str:
    return os.environ.get(f"VAULT_{name}") or os.environ.get(f"BAO_{name}") or ""


def _server_now() -> str:
    """The server and the namespace that the environment names; empty when it names none."""
    url, namespace = _from_environment("ADDR").rstrip("/"), _from_environment("NAMESPACE")
    return f"{url} {namespace}".strip() if url else ""


def _login() -> Secret | None:
    try:
        return Secret((Path.home() / ".vault-token").read_text(encoding="ascii").strip())
    except (OSError, ValueError, RuntimeError):
        return None


def _context() -> ssl.SSLContext:
    """Trusts what VAULT_CACERT or BAO_CACERT names. VAULT_SKIP_VERIFY is not followed."""
    return ssl.create_default_context(cafile=_from_environment("CACERT") or None)


def _within(known: Mapping[str, Any], *path: str) -> dict[str, Any]:
    """The object at `path`; empty when there is none."""
    found: Any = known
    for name in path:
        found = found.get(name) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}


def _listed(found: object) -> list[str]:
    return [each for each in found if isinstance(each, str)] if isinstance(found, list) else []


def _is_cas(answer: Answer) -> bool:
    return any("check-and-set" in each for each in _listed(answer.json().get("errors")))


def _policy(data: str) -> str:
    needed = 'capabilities = ["create", "read", "update", "patch"]'
    return f'is the token still good? Its policy needs: path "{data}" {{ {needed} }}'
