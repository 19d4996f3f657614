"""A key of a Kubernetes Secret: `kubernetes:NAMESPACE/SECRET#KEY`, by a merge PATCH, so that other keys stay.

The cluster is that of the current context, or of the option `context`, or of the pod that this runs in. The account
needs get, create and patch on that secret. A Secret that is not there is made; the marker is an annotation. kubectl's
own `apply` is not used: it keeps a copy of what it applied.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Mapping
from datetime import datetime
from typing import Any, ClassVar, Final, Self

from lamplighter.api.secret import Secret
from lamplighter.keys.errors import PolicyError, SinkError, SinkRefused
from lamplighter.keys.sinks.base import SOAK, Capabilities, Receipt, Sink
from lamplighter.keys.sinks.http import (
    TIMEOUT,
    VALUE,
    Answer,
    Body,
    HttpStore,
    join_address,
    json_body,
    path_of,
    secret_of,
    split_address,
    time_of,
)
from lamplighter.keys.sinks.kubeconfig import Cluster, current_context, find_cluster
from lamplighter.keys.value import MAX_LENGTH, KeyBuffer, wipe

_MERGE: Final = "application/merge-patch+json"
_MANAGER: Final = "lamplighter"
#: `was` is how a rotation that goes on later knows which context it began with; nobody writes it.
_OPTIONS: Final = frozenset({"context", "was"})
_PLACE: Final = re.compile(
    r"(?P<namespace>[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)/(?P<secret>[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?)"
    r"#(?P<key>[-._a-zA-Z0-9]{1,253})"
)
_RIGHTS: Final = "its role needs get, create and patch on secrets"
#: Controllers change annotations at any time: only who loses to them again and again has lost.
_TRIES: Final = 4


class _Encoded(Body):
    """Knows the value that it holds in Base64, so that no answer shows it where it says a code or an id."""

    __slots__ = ("_value",)
    _value: KeyBuffer

    @classmethod
    def of(cls, body: Body, value: KeyBuffer) -> Self:
        with body.reveal() as view:
            made = cls(bytearray(view), content_type=body.content_type)
        body.wipe()
        made._value = value
        return made

    def holds(self, part: bytes) -> bool:
        return super().holds(part) or _contains(self._value, part)


class KubernetesSink(Sink):
    """Options: `context`, a context of the kubeconfig; otherwise the current one."""

    kind: ClassVar[str] = "kubernetes"

    def __init__(self, namespace: str, secret: str, key: str, options: Mapping[str, str]) -> None:
        self.namespace = namespace
        self.secret = secret
        self.key = key
        self._options = dict(options)
        self.timeout = TIMEOUT

    @classmethod
    def parse(cls, address: str, options: Mapping[str, str]) -> Self:
        _, place, given = split_address(address, options, _OPTIONS)
        found = _PLACE.fullmatch(place)
        if not found:
            raise PolicyError(
                f"{address!r} is no address of a Secret: write kubernetes:NAMESPACE/SECRET#KEY, "
                "as kubernetes:default/neon#api-key"
            )
        return cls(found["namespace"], found["secret"], found["key"], given)

    def describe(self) -> str:
        place = f"{self.namespace}/{self.secret}#{self.key}"
        return join_address("kubernetes", place, {"context": self._options.get("context")})

    @property
    def options(self) -> Mapping[str, str]:
        """Which context is current, where the address names none: no other process shall write to another cluster."""
        if "context" in self._options:
            return {}
        was = self._options.get("was")
        if was is None:
            try:
                was = current_context()
            except SinkError:
                was = None
        return {"was": was} if was else {}

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(readable=True, comment=True, effect="minutes", soak=SOAK["minutes"])

    def check(self) -> str:
        store = self._store()
        for verb in ("get", "patch"):
            self._check_right(store, verb)
        with self._get(store) as answer:
            there = answer.status == 200
            fixed = there and answer.fields("immutable").get("immutable") is True
        if fixed:
            raise self._fixed()
        if not there:
            self._check_right(store, "create")
        state = "is there" if there else "will be made"
        return f"{store.base_url} lets us write {self.namespace}/{self.secret}; it {state}"

    def write(self, value: KeyBuffer, marker: str) -> Receipt:
        store = self._store()
        with value.reveal() as view:
            if (len(view) + 2) // 3 * 4 > MAX_LENGTH:
                raise SinkError("the value is too long", address=store.address)
            encoded = KeyBuffer(_base64(view))
        with encoded:
            for _ in range(_TRIES):
                receipt = self._put(store, value, encoded, marker)
                if receipt is not None:
                    return receipt
        raise SinkError(
            "HTTP 409: somebody else changes it all the time", address=store.address, status=409, hint="run it again"
        )

    def read_back(self) -> KeyBuffer | None:
        store = self._store()
        with self._get(store) as answer:
            encoded = None if answer.status == 404 else answer.value("data", self.key)
        if encoded is None:
            return None
        with encoded, encoded.reveal() as view:
            plain = _plain(view)
        if plain is None:
            raise store.senseless(200)
        return KeyBuffer(plain) if plain else None

    def metadata(self) -> Receipt | None:
        with self._get(self._store()) as answer:
            found = None if answer.status == 404 else answer.value("data", self.key)
            if found is None:
                return None
            found.wipe()
            return _receipt(answer)

    def delete(self) -> None:
        store = self._store()
        with self._get(store) as answer:
            found = None if answer.status == 404 else answer.value("data", self.key)
            if found is None:
                return
            found.wipe()
            ours = self._is_ours(answer)
        body = json_body(
            {"metadata": {"annotations": {self._mark: None}}, "data": {self.key: None}}, content_type=_MERGE
        )
        with store.call("PATCH", self._path, query={"fieldManager": _MANAGER}, body=body, allow=(404,)) as answer:
            empty = answer.status == 200 and not answer.fields("data").get("data")
        if ours and empty:
            store.call("DELETE", self._path, allow=(403, 404)).wipe()

    # The API

    def _store(self) -> HttpStore:
        address = self.describe()
        failed: SinkError | PolicyError
        try:
            cluster = find_cluster(self._options.get("context") or self._options.get("was"))
            header, token = _login(cluster, address)
            return HttpStore(
                base_url=cluster.server,
                address=address,
                token=lambda: token,
                header=header,
                request_id="audit-id",
                hints={401: "log in to the cluster again", 403: _RIGHTS, 422: "see: kubectl describe secret"},
                context=cluster.context,
                timeout=self.timeout,
            )
        except (SinkError, PolicyError) as error:
            failed = error
        kind = type(failed) if isinstance(failed, SinkError) else SinkError
        raise kind(failed.message, address=address, hint=failed.hint)

    @property
    def _path(self) -> str:
        return path_of("api", "v1", "namespaces", self.namespace, "secrets", self.secret)

    @property
    def _mark(self) -> str:
        return f"lamplighter.dev/{self.key}"[:79].rstrip("-._")

    @property
    def _made(self) -> str:
        return "lamplighter.dev/made"

    def _get(self, store: HttpStore) -> Answer:
        return store.call("GET", self._path, allow=(404,))

    def _is_ours(self, answer: Answer) -> bool:
        found = answer.fields("metadata").get("metadata")
        notes = found.get("annotations") if isinstance(found, dict) else None
        return isinstance(notes, dict) and self._made in notes

    def _put(self, store: HttpStore, value: KeyBuffer, encoded: KeyBuffer, marker: str) -> Receipt | None:
        """None when somebody else changed it at the same time."""
        with self._get(store) as answer:
            there = answer.status == 200
            version = _receipt(answer).version if there else None
            fixed = there and answer.fields("immutable").get("immutable") is True
        if fixed:
            raise self._fixed()
        metadata: dict[str, Any] = {"annotations": {self._mark: marker}}
        query = {"fieldManager": _MANAGER}
        if there:
            metadata["resourceVersion"] = version
            body = _Encoded.of(json_body({"metadata": metadata, "data": {self.key: VALUE}}, encoded), value)
            body.content_type = _MERGE
            answer = store.call("PATCH", self._path, query=query, body=body, allow=(404, 409))
        else:
            metadata["name"] = self.secret
            metadata["annotations"][self._made] = marker
            whole = {"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "metadata": metadata}
            body = _Encoded.of(json_body({**whole, "data": {self.key: VALUE}}, encoded), value)
            answer = store.call("POST", self._path.rpartition("/")[0], query=query, body=body, allow=(409,))
        with answer:
            return None if answer.status >= 300 else _receipt(answer)

    def _check_right(self, store: HttpStore, verb: str) -> None:
        """By asking the cluster: that changes nothing. One that does not say is tried when it is needed."""
        what = {"namespace": self.namespace, "verb": verb, "resource": "secrets", "name": self.secret}
        body = json_body(
            {
                "apiVersion": "authorization.k8s.io/v1",
                "kind": "SelfSubjectAccessReview",
                "spec": {"resourceAttributes": what},
            }
        )
        path = path_of("apis", "authorization.k8s.io", "v1", "selfsubjectaccessreviews")
        with store.call("POST", path, body=body, allow=(403, 404)) as answer:
            said = answer.json().get("status") if answer.status < 300 else None
        if isinstance(said, dict) and said.get("allowed") is False:
            raise SinkRefused(f"the account may not {verb} this secret", address=store.address, hint=_RIGHTS)

    def _fixed(self) -> SinkError:
        return SinkError(
            "this Secret is immutable", address=self.describe(), hint="make one of another name, or make it anew"
        )


def _login(cluster: Cluster, address: str) -> tuple[str, Secret]:
    """The header that ends in the secret. With a certificate there is none: any harmless header stands there."""
    if cluster.token is None:
        return "Cache-Control: ", Secret("no-store")
    return "Authorization: Bearer ", secret_of(cluster.token.reveal(), "the kubeconfig's user", address)


def _contains(value: KeyBuffer, part: bytes) -> bool:
    with value.reveal() as view:
        return any(view[at : at + len(part)] == part for at in range(len(view) - len(part) + 1))


def _receipt(answer: Answer) -> Receipt:
    found = answer.fields("metadata").get("metadata")
    known = found if isinstance(found, dict) else {}
    version = known.get("resourceVersion")
    return Receipt(
        version=version if isinstance(version, str) else None, updated_at=_changed_at(known), server_date=answer.date
    )


def _changed_at(metadata: Mapping[str, Any]) -> datetime | None:
    """The latest time that any manager of its fields changed it."""
    managed = metadata.get("managedFields")
    entries = [each for each in managed if isinstance(each, dict)] if isinstance(managed, list) else []
    said = [time_of(each.get("time")) for each in entries] + [time_of(metadata.get("creationTimestamp"))]
    return max((each for each in said if each is not None), default=None)


def _base64(view: memoryview) -> bytearray:
    """In pieces of a few bytes: the whole would be left behind in a string that cannot be wiped."""
    encoded = bytearray((len(view) + 2) // 3 * 4)
    for at in range(0, len(view), 3):
        encoded[at // 3 * 4 : at // 3 * 4 + 4] = b64encode(view[at : at + 3])
    return encoded


def _plain(view: memoryview) -> bytearray | None:
    """The reverse; None for what is no base64."""
    plain, length = bytearray(len(view) // 4 * 3), 0
    try:
        if len(view) % 4:
            return None
        for at in range(0, len(view), 4):
            piece = b64decode(view[at : at + 4], validate=True)
            plain[length : length + len(piece)] = piece
            length += len(piece)
        exact = plain[:length]
    except ValueError:
        return None
    finally:
        wipe(plain)
    return exact
