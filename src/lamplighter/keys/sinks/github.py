"""Secrets of GitHub: of Actions (repository, environment, organization), of Dependabot, Codespaces and agents.

GitHub takes a value sealed for the public key of the place, and never shows it again; it says when it was changed, in
whole seconds. An organization's secret keeps its visibility and its repositories. Sealing needs PyNaCl.
"""

from __future__ import annotations

import binascii
import json
import os
import re
import subprocess
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar, Final, Self
from urllib.parse import urlsplit

from lamplighter.api.secret import Secret
from lamplighter.keys.errors import PolicyError, SinkError, SinkRefused
from lamplighter.keys.harden import child_environment
from lamplighter.keys.sinks.base import SOAK, Capabilities, Receipt, Sink
from lamplighter.keys.sinks.http import (
    Body,
    HttpStore,
    check_url,
    is_loopback,
    join_address,
    path_of,
    secret_of,
    split_address,
    time_of,
    token_from_environment,
)
from lamplighter.keys.value import KeyBuffer

API: Final = "https://api.github.com"
_NAME: Final = re.compile(r"(?!GITHUB_)[A-Z_][A-Z0-9_]{0,254}")
_OWNER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
_REPOSITORY: Final = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,100}")
_PAGE: Final = 100
#: Which of GitHub's products has the secrets of a repository that are meant.
_APPS: Final[Mapping[str, str]] = {
    "github": "actions",
    "github-agents": "agents",
    "github-codespaces": "codespaces",
    "github-dependabot": "dependabot",
}
_FORMS: Final[Mapping[str, str]] = {
    "github-env": "github-env:OWNER/REPO/ENVIRONMENT/NAME",
    "github-org": "github-org:ORG/NAME",
}
#: Those that can be asked for without a list of repositories.
_GIVEN_VISIBILITIES: Final = ("all", "private")


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a secret is: in what `path` names, as `name`."""

    kind: str
    parts: tuple[str, ...]
    name: str

    @classmethod
    def parse(cls, kind: str, text: str) -> Self:
        """Raises PolicyError."""
        *parts, name = text.split("/")
        # GitHub writes every name in capitals, whatever it was given.
        place = cls(kind, tuple(parts), name.upper())
        if not _NAME.fullmatch(place.name) or not place._well_formed():
            form = _FORMS.get(kind, f"{kind}:OWNER/REPO/NAME")
            raise PolicyError(
                f"{kind}:{text} is no address of a secret: write {form}",
                hint="names have letters, digits and _, and do not begin with GITHUB_",
            )
        return place

    def _well_formed(self) -> bool:
        owner, *rest = self.parts or ("",)
        if not _OWNER.fullmatch(owner):
            return False
        if self.kind == "github-org":
            return not rest
        if not rest or not _REPOSITORY.fullmatch(rest[0]):
            return False
        # The name of an environment may have slashes.
        return all(rest[1:]) and len(rest) >= 2 if self.kind == "github-env" else len(rest) == 1

    def __str__(self) -> str:
        return "/".join((*self.parts, self.name))

    @property
    def secrets(self) -> str:
        """The path of all secrets there."""
        if self.kind == "github-org":
            return path_of("orgs", *self.parts, "actions", "secrets")
        owner, repository, *environment = self.parts
        if environment:
            return path_of("repos", owner, repository, "environments", "/".join(environment), "secrets")
        return path_of("repos", owner, repository, _APPS[self.kind], "secrets")

    @property
    def secret(self) -> str:
        return self.secrets + path_of(self.name)


class GitHubSink(Sink):
    """Options: `api_url`, and of an organization's secret `visibility`, without which it stays as it is."""

    kind: ClassVar[str] = "github"

    def __init__(self, place: _Place, *, api_url: str = API, visibility: str | None = None) -> None:
        self._place = place
        self._api_url = api_url
        self._visible_to = visibility
        self._address = join_address(place.kind, str(place), {"api_url": None if api_url == API else api_url})
        self._token: Secret | None = None
        self._store = HttpStore(
            base_url=api_url,
            address=self._address,
            token=self._credentials,
            headers={"Accept": "application/vnd.github+json", "X-GitHub-Api-Version": "2022-11-28"},
            request_id="x-github-request-id",
            hints=_hints(place.kind),
        )

    @classmethod
    def parse(cls, address: str, options: Mapping[str, str]) -> Self:
        known = frozenset({"api_url", "visibility"} if address.startswith("github-org:") else {"api_url"})
        kind, text, merged = split_address(address, options, known)
        place = _Place.parse(kind, text)
        visibility = merged.get("visibility")
        if visibility not in (None, *_GIVEN_VISIBILITIES):
            raise PolicyError(
                f"{address!r}: visibility is {' or '.join(_GIVEN_VISIBILITIES)}",
                hint="for selected repositories choose them at GitHub and leave it out: then it stays as it is",
            )
        api_url = (merged.get("api_url") or os.environ.get("GITHUB_API_URL") or API).rstrip("/")
        check_url(api_url, address)
        return cls(place, api_url=api_url, visibility=visibility)

    def describe(self) -> str:
        return self._address

    @property
    def options(self) -> Mapping[str, str]:
        return {"visibility": self._visible_to} if self._visible_to else {}

    @property
    def capabilities(self) -> Capabilities:
        if self._place.kind == "github-codespaces":
            return Capabilities(readable=False, effect="process restart", soak=SOAK["process restart"])
        return Capabilities(readable=False, effect="next workflow run", soak=SOAK["next workflow run"])

    def check(self) -> str:
        _sealing(self._address)
        with self._store.call("GET", f"{self._place.secrets}/public-key") as answer:
            granted = answer.headers.get("x-oauth-scopes")
        # Only the older kind of token says what it may do.
        if granted:
            self._check_scopes({each.strip() for each in granted.split(",")})
            return "GitHub answers, and the token may write secrets"
        return "GitHub answers, and the token may see secrets; whether it may write them shows when it does"

    def write(self, value: KeyBuffer, marker: str) -> Receipt:  # noqa: ARG002 - GitHub keeps no comment
        _sealing(self._address)
        key_id, key = self._public_key()
        sealed = _sealed(value, key, self._address)
        content = {"encrypted_value": sealed, "key_id": key_id, **self._visibility()}
        body = Body(bytearray(json.dumps(content).encode()), about=value)
        with self._store.call("PUT", self._place.secret, body=body) as answer:
            if answer.status not in (201, 204):
                raise self._store.senseless(answer.status)
            return Receipt(server_date=answer.date)

    def read_back(self) -> KeyBuffer | None:
        return None

    def metadata(self) -> Receipt | None:
        found = self._facts()
        if found is None:
            return None
        known, receipt = found
        if receipt.updated_at is None or known.get("name") != self._place.name:
            raise self._store.senseless(200)
        return receipt

    def delete(self) -> None:
        self._store.call("DELETE", self._place.secret, allow=(404,)).wipe()

    # What GitHub says

    def _facts(self) -> tuple[dict[str, Any], Receipt] | None:
        with self._store.call("GET", self._place.secret, allow=(404,)) as answer:
            if answer.status != 404:
                known = answer.json()
                return known, Receipt(updated_at=time_of(known.get("updated_at")), server_date=answer.date)
        # A place that does not exist, or that the token may not see, has no secrets either.
        self._public_key()
        return None

    def _public_key(self) -> tuple[str, bytes]:
        with self._store.call("GET", f"{self._place.secrets}/public-key") as answer:
            known = answer.json()
        key_id, text = known.get("key_id"), known.get("key")
        try:
            key = b64decode(text, validate=True) if isinstance(text, str) else b""
        except binascii.Error:
            key = b""
        if len(key) != 32 or not isinstance(key_id, str):
            raise self._store.senseless(200)
        return key_id, key

    def _visibility(self) -> dict[str, Any]:
        """Who may use an organization's secret, as it is or as was asked: GitHub wants it said with every write."""
        if self._place.kind != "github-org":
            return {}
        if self._visible_to is not None:
            return {"visibility": self._visible_to}
        found = self._facts()
        if found is None:
            # As `gh secret set` does; who wants it otherwise makes the secret with that first.
            return {"visibility": "private"}
        visibility = found[0].get("visibility")
        if visibility not in ("all", "private", "selected"):
            raise self._store.senseless(200)
        chosen = {"selected_repository_ids": self._repositories()} if visibility == "selected" else {}
        return {"visibility": visibility, **chosen}

    def _repositories(self) -> list[int]:
        ids: list[int] = []
        path, page = f"{self._place.secret}/repositories", 1
        while True:
            with self._store.call("GET", path, query={"per_page": _PAGE, "page": page}) as answer:
                known = answer.json()
            listed, total = known.get("repositories"), known.get("total_count")
            if not isinstance(listed, list) or not isinstance(total, int):
                raise self._store.senseless(200)
            ids += [each["id"] for each in listed if isinstance(each, dict) and isinstance(each.get("id"), int)]
            if len(ids) >= total:
                return ids
            if not listed:
                break
            page += 1
        # A list that is not whole would take the secret from the repositories that it leaves out.
        raise SinkError("GitHub does not list all repositories that may use the secret", address=self._address)

    # Our own credentials

    def _credentials(self) -> Secret:
        if self._token is None:
            self._token = self._find_token()
        return self._token

    def _find_token(self) -> Secret:
        host = urlsplit(self._api_url).hostname or ""
        names = ("GH_TOKEN", "GITHUB_TOKEN")
        if not self._of_the_environment(host):
            # As gh does: a token for github.com is not for others to see.
            names = ("GH_ENTERPRISE_TOKEN", "GITHUB_ENTERPRISE_TOKEN")
        if any(os.environ.get(name) for name in names):
            return token_from_environment(names, self._address)
        told = _gh_token(host.removeprefix("api."))
        if told is None:
            hint = f"set {names[0]}, or sign in with gh auth login"
            raise SinkRefused("there is no token", address=self._address, hint=hint)
        return secret_of(told.reveal(), "gh auth token", self._address)

    def _of_the_environment(self, host: str) -> bool:
        of_github = host == "api.github.com" or host.endswith(".ghe.com")
        return of_github or is_loopback(host) or os.environ.get("GITHUB_API_URL", "").rstrip("/") == self._api_url

    def _check_scopes(self, granted: set[str]) -> None:
        wanted = {"admin:org"} if self._place.kind == "github-org" else {"repo", "public_repo"}
        if not granted & wanted:
            raise SinkRefused(
                f"the token lacks the scope {' or '.join(sorted(wanted))}", address=self._address, status=403
            )


def _hints(kind: str) -> dict[int, str]:
    right = {
        "github-org": "the organization permission Secrets: write, or the scope admin:org",
        "github-env": "the repository permission Environments: write, or the scope repo",
        "github-codespaces": "the repository permission Codespaces secrets: write, or the scope repo",
        "github-dependabot": "the repository permission Dependabot secrets: write, or the scope repo",
    }.get(kind, "the repository permission Secrets: write, or the scope repo")
    return {
        401: "GitHub does not know the token: it expired, or was revoked",
        403: f"the token needs {right}",
        404: f"it does not exist, or the token may not see it: that needs {right}",
    }


def _gh_token(host: str) -> Secret | None:
    """What `gh` keeps, over a pipe."""
    try:
        done = subprocess.run(
            ["gh", "auth", "token", "--hostname", host],
            env=child_environment(allow=("GH_CONFIG_DIR",)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return Secret(done.stdout.decode("ascii", "replace")) if done.returncode == 0 else None


def _sealing(address: str) -> Any:
    """PyNaCl's module of sealed boxes, which is an extra. Raises SinkError."""
    try:
        return import_module("nacl.public")
    except ImportError:
        pass
    raise SinkError("GitHub needs PyNaCl", address=address, hint="pip install 'lamplighter[keys]'")


def _sealed(value: KeyBuffer, key: bytes, address: str) -> str:
    """The value in Base64, for the owner of `key` alone."""
    nacl = _sealing(address)
    try:
        box = nacl.SealedBox(nacl.PublicKey(key))
        with value.reveal() as view:
            # libsodium's binding takes bytes alone; they are gone with this expression.
            return b64encode(box.encrypt(bytes(view))).decode("ascii")
    except Exception:  # noqa: BLE001, S110 - whatever it is, its frames hold the value
        pass
    raise SinkError("the value cannot be sealed for GitHub's key", address=address)
