"""The few calls that the life of a key needs of Neon.

Minting, and whatever is asked with a key that was just minted, goes over `wire`, so that its value is never in a `str`.
Listing and revoking go over the SDK, with its pacing and retries.
"""

from __future__ import annotations

import json
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import quote

from lamplighter.api.secret import Secret
from lamplighter.keys.errors import MintError, MinterUnfit, MintUnknown, NeonFailed, NotProven, WrongScope
from lamplighter.keys.fold import Lineage
from lamplighter.keys.plan import LiveKey, scopes_in_use, why_not_theirs
from lamplighter.keys.records import Scope, ScopeKind
from lamplighter.keys.scan import members, text_of
from lamplighter.keys.value import KeyBuffer
from lamplighter.keys.wire import NoAnswerError, NotSentError, Reply, exchange, redact

if TYPE_CHECKING:
    from lamplighter.client._sync.client import Neon

#: Seconds that one request may take. A POST that had no answer for so long is given up for lost.
TIMEOUT: Final = 30.0
#: Neon says that it did nothing.
_SAFE_TO_REPEAT: Final = frozenset({423, 429, 503})
#: The server, or something before it, gave up waiting: the request may still be worked on.
_UNKNOWN: Final = frozenset({408, 499})
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_TRIES: Final = 5
_LONGEST_WAIT: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who a key is: `account_id` is the user's, or for other keys the organization's."""

    account_id: str
    method: str

    @property
    def kind(self) -> ScopeKind | None:
        """None for what is no API key. A project's key cannot be told from its organization's."""
        return {"api_key_user": "personal", "api_key_org": "organization"}.get(self.method)  # type: ignore[return-value]


@dataclass(frozen=True, slots=True, kw_only=True)
class MintedKey:
    """What Neon answered. `project_id` is the one that it says the key is for."""

    key_id: int
    project_id: str | None
    value: KeyBuffer


class KeyServer(ABC):
    """What rotations need of Neon. Every method may raise NeonFailed or MinterUnfit."""

    #: Seconds after which a POST without an answer cannot be under way any more.
    settle: float = TIMEOUT

    @abstractmethod
    def mint(self, scope: Scope, name: str) -> MintedKey:
        """Ask once for a key. Raises MintError when there is none, MintUnknown when there may be."""

    @abstractmethod
    def list(self, scope: Scope) -> Mapping[int, LiveKey]:
        """The live keys of the user, or of the scope's organization, by id."""

    @abstractmethod
    def revoke(self, scope: Scope, key_id: int) -> bool:
        """Revoke a key; False when there was none. After NeonFailed it may be revoked or not."""

    @abstractmethod
    def identity(self) -> Identity:
        """Who we are."""

    def organizations(self) -> frozenset[str] | None:
        """Ids of those whose keys we may list; None where the server does not say that."""
        return None

    @abstractmethod
    def check(self, scope: Scope, key_id: int, value: KeyBuffer) -> Identity:
        """Try a new key: it works, and reaches what it should and no more. Raises WrongScope, NotProven."""

    @abstractmethod
    def try_key(self, value: KeyBuffer) -> Identity:
        """`GET /auth` with this key. Raises NotProven when it is refused."""

    @abstractmethod
    def mac(self, salt: bytes) -> str | None:
        """The HMAC of the key that we work with."""

    @abstractmethod
    def sign_in(self, value: KeyBuffer) -> KeyServer:
        """The same server, asked with this key."""

    def close(self) -> None:  # noqa: B027 - not every server holds connections
        """Let go of connections."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class NeonKeys(KeyServer):
    """Neon's cloud, or any server that speaks its API. `base_url` ends with `/api/v2`."""

    def __init__(
        self, *, base_url: str, api_key: Secret, timeout: float = TIMEOUT, settle: float | None = None
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self.timeout = timeout
        self.settle = timeout if settle is None else settle
        self._api_key = api_key
        self._identity: Identity | None = None
        self._client: Neon | None = None

    def __repr__(self) -> str:
        return f"<NeonKeys {self.base_url}>"

    @property
    def neon(self) -> Neon:
        """The SDK's client, made when it is first needed."""
        if self._client is None:
            from lamplighter.client._sync.client import Neon  # noqa: PLC0415 - a tenth of a second

            self._client = Neon(api_key=self._api_key, base_url=self.base_url, timeout=self.timeout)
        return self._client

    def close(self) -> None:
        if self._client is not None:
            self._client.close()

    # With the minter key, over the SDK

    def list(self, scope: Scope) -> Mapping[int, LiveKey]:
        with _told("list keys"):
            neon = self.neon
            found: Any = neon.organizations.api_keys(scope.org_id) if scope.org_id else neon.api_keys.list()
            return {each.id: _live(each) for each in found}

    def revoke(self, scope: Scope, key_id: int) -> bool:
        from lamplighter.client.errors import NotFound  # noqa: PLC0415 - with the SDK

        with _told(f"revoke key {key_id}"):
            try:
                if scope.org_id:
                    self.neon.organizations.revoke_api_key(scope.org_id, key_id)
                else:
                    self.neon.api_keys.revoke(key_id)
            except NotFound:
                return False
            return True

    def identity(self) -> Identity:
        if self._identity is None:
            with _told("ask who the minter is"):
                found = self.neon.users.auth_details()
            self._identity = Identity(account_id=found.account_id, method=str(found.auth_method))
        return self._identity

    def organizations(self) -> frozenset[str] | None:
        who = self.identity()
        if who.kind != "personal":
            return frozenset({who.account_id})
        with _told("list organizations"):
            return frozenset(each.id for each in self.neon.users.organizations())

    def mac(self, salt: bytes) -> str | None:
        with KeyBuffer(bytearray(self._api_key.reveal().encode())) as value:
            return value.mac(salt)

    def sign_in(self, value: KeyBuffer) -> Self:
        with value.reveal() as view:
            # The SDK takes a string. This is a long-lived minter, which every later run holds in the same way.
            api_key = Secret(bytes(view).decode("ascii"))
        return type(self)(base_url=self.base_url, api_key=api_key, timeout=self.timeout, settle=self.settle)

    # Over the wire

    def mint(self, scope: Scope, name: str) -> MintedKey:
        path = f"/organizations/{quote(scope.org_id, safe='')}/api_keys" if scope.org_id else "/api_keys"
        asked = {"key_name": name, **({"project_id": scope.project_id} if scope.project_id else {})}
        with self._post(path, json.dumps(asked).encode()) as reply:
            if not 200 <= reply.status < 300:
                raise _refused(reply)
            return _minted(reply)

    def _post(self, path: str, body: bytes) -> Reply:
        """The answer to one POST that the server may have acted on. Refusals that did nothing are asked again."""
        why = ""
        for attempt in range(_TRIES):
            last = attempt == _TRIES - 1
            try:
                reply = self._ask("POST", path, self._bearer(), body=body)
            except NotSentError as error:
                why = str(error)
                if not last:
                    time.sleep(0.2 * 2**attempt)
                continue
            except NoAnswerError as error:
                why = str(error)
                break
            if reply.status not in _SAFE_TO_REPEAT or last:
                return reply
            time.sleep(_pause_of(reply, attempt))
        else:
            raise MintError(f"no key was made: {why}")
        raise MintUnknown(f"it is not known whether a key was made: {why}")

    def check(self, scope: Scope, key_id: int, value: KeyBuffer) -> Identity:
        found = self.try_key(value)
        expected = scope.org_id or self.identity().account_id
        # A project's key answers as its organization's does.
        if found.account_id != expected or (found.method == "api_key_user") != (scope.kind == "personal"):
            raise WrongScope(f"key {key_id} is not a key of {scope}", key_id=key_id)
        for path, allowed in self._trials(scope):
            status = self._status(path, value)
            if allowed and status != 200:
                raise WrongScope(f"key {key_id} does not reach {scope}: HTTP {status}", key_id=key_id)
            if not allowed and status == 200:
                raise WrongScope(f"key {key_id} reaches more than {scope}", key_id=key_id)
        return found

    def try_key(self, value: KeyBuffer) -> Identity:
        with self._get("/auth", value) as reply:
            if reply.status != 200:
                raise NotProven(f"Neon does not accept the new key: HTTP {reply.status}")
            known = reply.json()
        account, method = known.get("account_id"), known.get("auth_method")
        if not isinstance(account, str) or not isinstance(method, str):
            raise NotProven("Neon does not say whose the new key is")
        return Identity(account_id=account, method=method)

    def _trials(self, scope: Scope) -> Iterator[tuple[str, bool]]:
        """What to ask with a new key, and whether it should be allowed to."""
        if scope.kind == "personal":
            yield "/users/me", True
            return
        organization = quote(scope.org_id or "", safe="")
        if scope.kind == "organization":
            yield f"/organizations/{organization}/api_keys", True
            yield "/users/me", False
            return
        yield f"/projects/{quote(scope.project_id or '', safe='')}", True
        yield f"/organizations/{organization}/api_keys", False
        if (other := self._other_project(scope)) is not None:
            yield f"/projects/{quote(other, safe='')}", False

    def _other_project(self, scope: Scope) -> str | None:
        """A project that the new key must not reach; None where we know of none."""
        with _told("list projects"):
            found = self.neon.projects.list(org_id=scope.org_id, limit=2).page()
        return next((each.id for each in found.items if each.id != scope.project_id), None)

    def _status(self, path: str, value: KeyBuffer) -> int:
        with self._get(path, value) as reply:
            return reply.status

    def _get(self, path: str, value: KeyBuffer) -> Reply:
        """Safe to repeat. A key that was just made may be refused for a moment."""
        why = "it is busy"
        for attempt in range(_TRIES):
            last = attempt == _TRIES - 1
            try:
                reply = self._ask("GET", path, value)
            except (NotSentError, NoAnswerError) as error:
                why = str(error)
                if not last:
                    time.sleep(0.2 * 2**attempt)
                continue
            again = reply.status in _SAFE_TO_REPEAT or reply.status in (502, 504)
            if not again and not (reply.status == 401 and attempt < 2):
                return reply
            time.sleep(_pause_of(reply, attempt) if again else 0.3)
        raise NeonFailed(f"cannot try the new key: {why}")

    def _ask(self, method: str, path: str, key: KeyBuffer, *, body: bytes | None = None) -> Reply:
        with key.reveal() as view:
            return exchange(self.base_url, method, path, secret=view, body=body, timeout=self.timeout)

    def _bearer(self) -> KeyBuffer:
        return KeyBuffer(bytearray(self._api_key.reveal().encode("ascii")))


def check_theirs(server: KeyServer, lineage: Lineage) -> None:
    """Raises MinterUnfit where the lists of a server cannot have the live keys of a lineage."""
    of_organizations = any(each.org_id is not None for each in scopes_in_use(lineage))
    organizations = server.organizations() if of_organizations else None
    error = why_not_theirs(lineage, server.identity().account_id, organizations)
    if error is not None:
        raise error


# Reading answers


def _minted(reply: Reply) -> MintedKey:
    """What the answer to a POST says. Nothing of it is in the error."""
    try:
        with reply.reveal() as view:
            found = members(view)
            with view[slice(*found["key"])] as quoted:
                value = KeyBuffer(text_of(quoted))
            _blank(reply, value)
            key_id = int(bytes(view[slice(*found["id"])]))
            # The contract leaves it away where there is none.
            project_id = json.loads(bytes(view[slice(*found["project_id"])])) if "project_id" in found else None
    except (ValueError, KeyError):
        pass
    else:
        return MintedKey(key_id=key_id, project_id=project_id, value=value)
    raise MintUnknown("a key was made, but the answer cannot be read", status=reply.status)


def _blank(reply: Reply, value: KeyBuffer) -> None:
    """Overwrite the value wherever else the answer has it."""
    with value.reveal() as secret, reply.reveal() as view:
        at = reply.find(secret)
        while at >= 0:
            view[at : at + len(secret)] = b"*" * len(secret)
            at = reply.find(secret, at)


def _refused(reply: Reply) -> MintError | MinterUnfit:
    known = reply.json()
    said = redact(str(known.get("message") or ""))
    text = f"Neon refused to make a key: HTTP {reply.status}" + (f", {said}" if said else "")
    if reply.status in (401, 403):
        return MinterUnfit(text, hint="the minter has to be a personal key of an admin of the organization")
    request_id = _request_id(reply.headers.get("x-neon-ret-request-id") or known.get("request_id"))
    # A 5xx says that something went wrong, not that nothing was done.
    unknown = (reply.status >= 500 and reply.status not in _SAFE_TO_REPEAT) or reply.status in _UNKNOWN
    kind = MintUnknown if unknown else MintError
    return kind(text, status=reply.status, code=redact(str(known.get("code") or ""), 64), request_id=request_id)


def _request_id(said: object) -> str | None:
    """Neon's are UUIDs, which are as long as a secret and none."""
    text = str(said or "")
    return (text if _UUID.fullmatch(text) else redact(text, 64)) or None


def _pause_of(reply: Reply, attempt: int) -> float:
    """Seconds to wait before the same is asked again."""
    with reply:
        said = reply.headers.get("retry-after", "")
    seconds = float(said) if said.isdigit() else 0.5 * 2**attempt
    return min(seconds, _LONGEST_WAIT)


def _live(listed: Any) -> LiveKey:
    used = listed.last_used_at
    return LiveKey(
        id=listed.id,
        name=listed.name,
        created_at=listed.created_at,
        last_used_at=None if used is None else used.isoformat(),
        last_used_from=tuple(part.strip() for part in listed.last_used_from_addr.split(",") if part.strip()),
        project_id=getattr(listed, "project_id", None),
    )


@contextmanager
def _told(what: str) -> Iterator[None]:
    """The SDK's errors as ours."""
    from lamplighter.client.errors import (  # noqa: PLC0415 - with the SDK
        APIError,
        AuthenticationError,
        NeonError,
        PermissionDenied,
    )

    failed: MinterUnfit | NeonFailed | None = None
    try:
        yield
    except (AuthenticationError, PermissionDenied) as error:
        failed = MinterUnfit(f"cannot {what}: {redact(str(error))}")
    except NeonError as error:
        status = error.status if isinstance(error, APIError) else 0
        failed = NeonFailed(f"cannot {what}: {redact(str(error))}", status=status)
    # Out of the except block: the error of the SDK does not come along.
    if failed is not None:
        raise failed
