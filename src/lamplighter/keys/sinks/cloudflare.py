"""Cloudflare: a secret of an account's Secrets Store, and a secret of one Worker. Neither is ever shown again.

The store keeps a comment, which names the key and the rotation, and says when a secret was changed. Of a Worker's
secrets there are the names alone; each write makes a new version of the Worker and deploys it at once.
"""

from __future__ import annotations

import os
import re
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Final, Self

from lamplighter.api.secret import Secret
from lamplighter.keys.errors import PolicyError, SinkError, SinkNotFound
from lamplighter.keys.sinks.base import SOAK, Capabilities, Receipt, Sink
from lamplighter.keys.sinks.http import (
    VALUE,
    Answer,
    HttpStore,
    check_url,
    join_address,
    json_body,
    path_of,
    split_address,
    time_of,
    token_from_environment,
)
from lamplighter.keys.value import KeyBuffer

API: Final = "https://api.cloudflare.com/client/v4"
_ID: Final = re.compile(r"[0-9a-f]{32}")
_PART: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9 _.-]{0,127}")
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}")
_PAGE: Final = 100


class _CloudflareSink(Sink):
    """What both have in common: an address of an account, a holder in it, and a name."""

    form: ClassVar[str]
    right: ClassVar[str]

    def __init__(self, account: str, holder: str, name: str, *, api_url: str = API) -> None:
        self._account = account
        self._holder = holder
        self._name = name
        place = f"{account}/{holder}/{name}"
        self._address = join_address(self.kind, place, {"api_url": None if api_url == API else api_url})
        self._token: Secret | None = None
        self._store = HttpStore(
            base_url=api_url,
            address=self._address,
            token=self._credentials,
            request_id="cf-ray",
            hints={
                401: "Cloudflare does not accept CLOUDFLARE_API_TOKEN",
                403: f"CLOUDFLARE_API_TOKEN needs the permission {self.right}, for this account",
            },
        )

    @classmethod
    def parse(cls, address: str, options: Mapping[str, str]) -> Self:
        _, place, merged = split_address(address, options, frozenset({"api_url"}))
        parts = place.split("/")
        if len(parts) != 3 or not all(map(_PART.fullmatch, parts[:2])) or not _NAME.fullmatch(parts[2]):
            raise PolicyError(f"{address!r} is no address of a secret at Cloudflare: write {cls.form}")
        api_url = (merged.get("api_url") or os.environ.get("CLOUDFLARE_API_BASE_URL") or API).rstrip("/")
        check_url(api_url, address)
        return cls(parts[0], parts[1], parts[2], api_url=api_url)

    def describe(self) -> str:
        return self._address

    def read_back(self) -> KeyBuffer | None:
        return None

    def metadata(self) -> Receipt | None:
        found, receipt = self._found()
        return None if found is None else receipt

    @abstractmethod
    def _found(self) -> tuple[dict[str, Any] | None, Receipt]:
        """What Cloudflare says of the secret, None when there is none."""

    def _credentials(self) -> Secret:
        if self._token is None:
            self._token = token_from_environment(("CLOUDFLARE_API_TOKEN",), self._address)
        return self._token

    def _result(self, answer: Answer) -> Any:
        """What is in the envelope."""
        known = answer.json()
        if known.get("success") is not True or "result" not in known:
            raise self._store.senseless(answer.status)
        return known["result"]

    def _listed(self, path: str) -> Iterator[tuple[dict[str, Any], Answer]]:
        """Everything on all pages."""
        seen, page = 0, 1
        while True:
            with self._store.call("GET", path, query={"per_page": _PAGE, "page": page}) as answer:
                result = self._result(answer)
                about = answer.json().get("result_info")
                if not isinstance(result, list):
                    raise self._store.senseless(answer.status)
                for each in result:
                    if isinstance(each, dict):
                        yield each, answer
            seen, page = seen + len(result), page + 1
            total = about.get("total_count") if isinstance(about, dict) else None
            if not result or not isinstance(total, int) or seen >= total:
                return


class CloudflareStoreSink(_CloudflareSink):
    """`STORE` is the store's id or its name."""

    kind: ClassVar[str] = "cloudflare-store"
    form: ClassVar[str] = "cloudflare-store:ACCOUNT/STORE/NAME"
    right: ClassVar[str] = "Secrets Store: Edit"

    _store_id: str | None = None

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(readable=False, comment=True, effect="next read", soak=SOAK["next read"])

    def check(self) -> str:
        found, _ = self._found()
        return f"Cloudflare answers, and the store {'has the secret' if found else 'will get the secret'}"

    def write(self, value: KeyBuffer, marker: str) -> Receipt:
        found, _ = self._found()
        if found is None:
            fields = {"name": self._name, "value": VALUE, "scopes": ["workers"], "comment": marker}
            # Asked again after an answer that was lost, it would say that the secret is there already.
            answer = self._store.call("POST", self._secrets(), body=json_body([fields], value))
        else:
            path = self._secrets() + path_of(str(found["id"]))
            answer = self._store.call("PATCH", path, body=json_body({"value": VALUE, "comment": marker}, value))
        with answer:
            result = self._result(answer)
            made = result[0] if isinstance(result, list) and result else result
            if not isinstance(made, dict):
                raise self._store.senseless(answer.status)
            return Receipt(updated_at=time_of(made.get("modified")), server_date=answer.date)

    def delete(self) -> None:
        found, _ = self._found()
        if found is not None:
            self._store.call("DELETE", self._secrets() + path_of(str(found["id"])), allow=(404,)).wipe()

    def _found(self) -> tuple[dict[str, Any] | None, Receipt]:
        for each, answer in self._listed(self._secrets()):
            if each.get("name") == self._name and each.get("status") != "deleted":
                if not isinstance(each.get("id"), str):
                    raise self._store.senseless(answer.status)
                return each, Receipt(updated_at=time_of(each.get("modified")), server_date=answer.date)
        return None, Receipt()

    def _secrets(self) -> str:
        stores = path_of("accounts", self._account, "secrets_store", "stores")
        if self._store_id is None:
            self._store_id = self._holder if _ID.fullmatch(self._holder) else self._id_of(stores)
        return stores + path_of(self._store_id, "secrets")

    def _id_of(self, stores: str) -> str:
        for each, _ in self._listed(stores):
            if self._holder in (each.get("id"), each.get("name")) and isinstance(each.get("id"), str):
                return str(each["id"])
        raise SinkNotFound(f"the account has no Secrets Store {self._holder!r}", address=self._address)


class CloudflareWorkerSink(_CloudflareSink):
    kind: ClassVar[str] = "cloudflare-worker"
    form: ClassVar[str] = "cloudflare-worker:ACCOUNT/SCRIPT/NAME"
    right: ClassVar[str] = "Workers Scripts: Edit"

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(readable=False, effect="at once", soak=SOAK["at once"])

    def check(self) -> str:
        found, _ = self._found()
        return f"Cloudflare answers, and the Worker {'has the secret' if found else 'will get the secret'}"

    def write(self, value: KeyBuffer, marker: str) -> Receipt:  # noqa: ARG002 - a Worker keeps no comment
        body = json_body({"name": self._name, "text": VALUE, "type": "secret_text"}, value)
        with self._store.call("PUT", self._secrets(), body=body) as answer:
            if self._result(answer) is None:
                raise self._store.senseless(answer.status)
            return Receipt(server_date=answer.date)

    def delete(self) -> None:
        self._store.call("DELETE", self._secrets() + path_of(self._name), allow=(404,)).wipe()

    def _found(self) -> tuple[dict[str, Any] | None, Receipt]:
        for each, answer in self._listed(self._secrets()):
            if each.get("name") == self._name:
                if each.get("type") != "secret_text":
                    raise SinkError("there is a secret of another type by that name", address=self._address)
                return each, Receipt(server_date=answer.date)
        return None, Receipt()

    def _secrets(self) -> str:
        return path_of("accounts", self._account, "workers", "scripts", self._holder, "secrets")
