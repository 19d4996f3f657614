"""GitHub's API of secrets, with key pairs of its own: it opens what it is sent."""

from __future__ import annotations

import os
import subprocess
import sysconfig
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

from nacl.public import PrivateKey, SealedBox

from support.stores.server import Request, Response, Store, route

Gh = Callable[..., str]


@dataclass
class Sealed:
    value: bytes
    created_at: datetime
    updated_at: datetime
    visibility: str | None = None
    repositories: list[int] = field(default_factory=list)


class GitHubStore(Store):
    """`places` are paths such as `repos/octo/shop/actions`: each has a key pair and secrets by name."""

    request_header: ClassVar[str] = "X-GitHub-Request-Id"

    def __init__(self, *, token: str) -> None:
        self.places: dict[str, dict[str, Sealed]] = {}
        self.keys: dict[str, PrivateKey] = {}
        #: Repositories of organizations by full name.
        self.repositories: dict[str, int] = {}
        #: What tokens of the older kind may do.
        self.scopes: str | None = None
        #: How many repositories come on one page at most.
        self.page = 100
        super().__init__(token=token)

    def add(self, place: str) -> dict[str, Sealed]:
        self.keys[place] = PrivateKey.generate()
        return self.places.setdefault(place, {})

    def answer(self, request: Request) -> Response:
        response = super().answer(request)
        extra = {} if self.scopes is None else {"X-OAuth-Scopes": self.scopes}
        return Response(response.status, response.content, {**response.headers, **extra})

    def refused(self, status: int, request: Request) -> Response:
        message = {401: "Bad credentials", 404: "Not Found"}.get(status, "no")
        return Response(
            status, {"message": message, "documentation_url": "https://docs.github.com/rest", "status": str(status)}
        )

    def _place(self, *parts: str) -> tuple[str, dict[str, Sealed]] | None:
        name = "/".join(parts)
        return (name, self.places[name]) if name in self.places else None

    # The places

    @route("GET", "/repos/{owner}/{repo}/{app}/secrets/public-key")
    def repo_key(self, request: Request, owner: str, repo: str, app: str) -> Response:
        return self._key(request, f"repos/{owner}/{repo}/{app}")

    @route("GET", "/repos/{owner}/{repo}/environments/{env}/secrets/public-key")
    def env_key(self, request: Request, owner: str, repo: str, env: str) -> Response:
        return self._key(request, f"repos/{owner}/{repo}/environments/{env}")

    @route("GET", "/orgs/{org}/{app}/secrets/public-key")
    def org_key(self, request: Request, org: str, app: str) -> Response:
        return self._key(request, f"orgs/{org}/{app}")

    def _key(self, request: Request, place: str) -> Response:
        if place not in self.places:
            return self.refused(404, request)
        public = bytes(self.keys[place].public_key)
        return Response(200, {"key_id": f"key-{place}", "key": b64encode(public).decode()})

    @route("GET", "/repos/{owner}/{repo}/{app}/secrets")
    def repo_list(self, request: Request, owner: str, repo: str, app: str) -> Response:
        return self._list(request, f"repos/{owner}/{repo}/{app}")

    @route("GET", "/repos/{owner}/{repo}/environments/{env}/secrets")
    def env_list(self, request: Request, owner: str, repo: str, env: str) -> Response:
        return self._list(request, f"repos/{owner}/{repo}/environments/{env}")

    @route("GET", "/orgs/{org}/{app}/secrets")
    def org_list(self, request: Request, org: str, app: str) -> Response:
        return self._list(request, f"orgs/{org}/{app}")

    def _list(self, request: Request, place: str) -> Response:
        if place not in self.places:
            return self.refused(404, request)
        secrets = self.places[place]
        shown = [self._shown(place, name, each) for name, each in sorted(secrets.items())]
        return Response(200, {"total_count": len(shown), "secrets": shown})

    def _shown(self, place: str, name: str, secret: Sealed) -> dict[str, Any]:
        shown: dict[str, Any] = {
            "name": name,
            "created_at": secret.created_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "updated_at": secret.updated_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        if secret.visibility is not None:
            shown["visibility"] = secret.visibility
            if secret.visibility == "selected":
                shown["selected_repositories_url"] = f"https://api.github.com/{place}/secrets/{name}/repositories"
        return shown

    # One secret

    @route("GET", "/repos/{owner}/{repo}/{app}/secrets/{name}")
    def repo_get(self, request: Request, owner: str, repo: str, app: str, name: str) -> Response:
        return self._get(request, f"repos/{owner}/{repo}/{app}", name)

    @route("GET", "/repos/{owner}/{repo}/environments/{env}/secrets/{name}")
    def env_get(self, request: Request, owner: str, repo: str, env: str, name: str) -> Response:
        return self._get(request, f"repos/{owner}/{repo}/environments/{env}", name)

    @route("GET", "/orgs/{org}/{app}/secrets/{name}")
    def org_get(self, request: Request, org: str, app: str, name: str) -> Response:
        return self._get(request, f"orgs/{org}/{app}", name)

    def _get(self, request: Request, place: str, name: str) -> Response:
        if name == "public-key":
            return self._key(request, place)
        secret = self.places.get(place, {}).get(name)
        return self.refused(404, request) if secret is None else Response(200, self._shown(place, name, secret))

    @route("PUT", "/repos/{owner}/{repo}/{app}/secrets/{name}")
    def repo_put(self, request: Request, owner: str, repo: str, app: str, name: str) -> Response:
        return self._put(request, f"repos/{owner}/{repo}/{app}", name)

    @route("PUT", "/repos/{owner}/{repo}/environments/{env}/secrets/{name}")
    def env_put(self, request: Request, owner: str, repo: str, env: str, name: str) -> Response:
        return self._put(request, f"repos/{owner}/{repo}/environments/{env}", name)

    @route("PUT", "/orgs/{org}/{app}/secrets/{name}")
    def org_put(self, request: Request, org: str, app: str, name: str) -> Response:
        return self._put(request, f"orgs/{org}/{app}", name)

    def _put(self, request: Request, place: str, name: str) -> Response:
        if place not in self.places:
            return self.refused(404, request)
        sent = request.json()
        if sent.get("key_id") != f"key-{place}":
            return Response(422, {"message": "Invalid request.\n\nkey_id is not the current one."})
        if place.startswith("orgs/") and sent.get("visibility") not in ("all", "private", "selected"):
            return Response(422, {"message": 'Invalid request.\n\n"visibility" wasn\'t supplied.'})
        value = SealedBox(self.keys[place]).decrypt(b64decode(sent["encrypted_value"], validate=True))
        now, before = self.tick(), self.places[place].get(name)
        # As GitHub: what is not sent with an organization's secret is lost.
        self.places[place][name] = Sealed(
            value,
            before.created_at if before else now,
            now,
            sent.get("visibility"),
            [int(each) for each in sent.get("selected_repository_ids", [])],
        )
        return Response(204) if before else Response(201, {})

    @route("DELETE", "/repos/{owner}/{repo}/{app}/secrets/{name}")
    def repo_delete(self, request: Request, owner: str, repo: str, app: str, name: str) -> Response:
        return self._delete(request, f"repos/{owner}/{repo}/{app}", name)

    @route("DELETE", "/repos/{owner}/{repo}/environments/{env}/secrets/{name}")
    def env_delete(self, request: Request, owner: str, repo: str, env: str, name: str) -> Response:
        return self._delete(request, f"repos/{owner}/{repo}/environments/{env}", name)

    @route("DELETE", "/orgs/{org}/{app}/secrets/{name}")
    def org_delete(self, request: Request, org: str, app: str, name: str) -> Response:
        return self._delete(request, f"orgs/{org}/{app}", name)

    def _delete(self, request: Request, place: str, name: str) -> Response:
        if self.places.get(place, {}).pop(name, None) is None:
            return self.refused(404, request)
        return Response(204)

    # Organizations

    @route("GET", "/orgs/{org}/{app}/secrets/{name}/repositories")
    def org_repositories(self, request: Request, org: str, app: str, name: str) -> Response:
        secret = self.places.get(f"orgs/{org}/{app}", {}).get(name)
        if secret is None:
            return self.refused(404, request)
        page, size = int(request.query.get("page", 1)), min(int(request.query.get("per_page", 30)), self.page)
        names = {number: full for full, number in self.repositories.items()}
        shown = [
            {"id": each, "name": names[each].split("/")[1], "full_name": names[each]} for each in secret.repositories
        ]
        return Response(200, {"total_count": len(shown), "repositories": shown[(page - 1) * size : page * size]})

    @route("POST", "/graphql")
    def graphql(self, request: Request) -> Response:
        """The one thing that `gh secret set --repos` asks: the ids of repositories."""
        variables = request.json().get("variables") or {}
        found = {}
        for alias, owner, name in _asked(request.json()["query"], variables):
            full = f"{owner}/{name}"
            found[alias] = {"name": name, "owner": {"login": owner}, "databaseId": self.repositories[full]}
        return Response(200, {"data": found})


def _asked(query: str, variables: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Aliases with owner and name, from `repo_000: repository(owner: "o", name: "r")`."""
    import re

    return re.findall(r'(\w+)\s*:\s*repository\(owner:\s*"([^"]+)",\s*name:\s*"([^"]+)"', query)


@contextmanager
def gh_client(store: GitHubStore, home: Path) -> Iterator[Gh]:
    """GitHub's own command line client: what it would say to api.github.com goes to the store, over a unix socket."""
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "GH_CONFIG_DIR": str(home / "gh"),
        "GH_TOKEN": store.token,
        "GH_NO_UPDATE_NOTIFIER": "1",
        "GH_PROMPT_DISABLED": "1",
    }

    def run(*arguments: str, stdin: str = "") -> str:
        done = subprocess.run(
            [Path(sysconfig.get_path("scripts")) / "gh", *arguments],
            env=env,
            cwd=home,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    with store.on_socket(home / "socket") as path:
        run("config", "set", "http_unix_socket", str(path))
        yield run
