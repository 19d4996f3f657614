"""Cloudflare's API of the Secrets Store and of the secrets of Workers."""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from support.npm import Node, bundled_node, installed
from support.stores.server import Request, Response, Store, route

Wrangler = Callable[..., str]
_LOCK = Path(__file__).parents[2] / "contract" / "keys" / "wrangler"


class CloudflareStore(Store):
    """`stores` and `workers` are of one account; each secret is what Cloudflare would show, and its `value`."""

    base_path: ClassVar[str] = "/client/v4"
    request_header: ClassVar[str] = "CF-Ray"

    def __init__(self, *, token: str, account: str) -> None:
        self.account = account
        self.stores: dict[str, dict[str, Any]] = {}
        self.workers: dict[str, dict[str, dict[str, Any]]] = {}
        #: How many things come on one page at most.
        self.page = 100
        super().__init__(token=token)

    def add_store(self, name: str) -> str:
        store_id = secrets.token_hex(16)
        self.stores[store_id] = {"id": store_id, "name": name, "secrets": {}}
        return store_id

    def named(self, store_id: str, name: str) -> dict[str, Any] | None:
        found = [each for each in self.stores[store_id]["secrets"].values() if each["name"] == name]
        return found[0] if found else None

    def refused(self, status: int, request: Request) -> Response:
        code = {401: 10000, 404: 7003}.get(status, 10001)
        return self._failed(status, code, "refused")

    def _failed(self, status: int, code: int, message: str) -> Response:
        errors = [{"code": code, "message": message}]
        return Response(status, {"success": False, "errors": errors, "messages": [], "result": None})

    def _envelope(self, result: Any, **about: Any) -> Response:
        return Response(200, {"success": True, "errors": [], "messages": [], "result": result, **about})

    def _paged(self, request: Request, found: list[Any]) -> Response:
        page, size = int(request.query.get("page", 1)), min(int(request.query.get("per_page", 20)), self.page)
        shown = found[(page - 1) * size : page * size]
        about = {"page": page, "per_page": size, "count": len(shown), "total_count": len(found)}
        return self._envelope(shown, result_info=about)

    # The Secrets Store

    @route("GET", "/accounts/{account}/secrets_store/stores")
    def list_stores(self, request: Request, account: str) -> Response:
        if account != self.account:
            return self._failed(403, 9109, "Unauthorized to access requested resource")
        return self._paged(request, [self._dated(each) for each in self.stores.values()])

    def _dated(self, store: dict[str, Any]) -> dict[str, Any]:
        now = self.now().isoformat()
        return {"id": store["id"], "name": store["name"], "created": now, "modified": now, "account_id": self.account}

    @route("GET", "/accounts/{account}/secrets_store/stores/{store}/secrets")
    def list_secrets(self, request: Request, account: str, store: str) -> Response:
        if account != self.account or store not in self.stores:
            return self._failed(404, 1001, "store_not_found")
        return self._paged(request, [self._shown(each) for each in self.stores[store]["secrets"].values()])

    @route("GET", "/accounts/{account}/secrets_store/stores/{store}/secrets/{secret}")
    def get_secret(self, request: Request, account: str, store: str, secret: str) -> Response:
        found = self.stores.get(store, {"secrets": {}})["secrets"].get(secret)
        return self._failed(404, 1001, "secret_not_found") if found is None else self._envelope(self._shown(found))

    def _shown(self, secret: dict[str, Any]) -> dict[str, Any]:
        return {name: content for name, content in secret.items() if name != "value"}

    @route("POST", "/accounts/{account}/secrets_store/stores/{store}/secrets")
    def create_secrets(self, request: Request, account: str, store: str) -> Response:
        if account != self.account or store not in self.stores:
            return self._failed(404, 1001, "store_not_found")
        made = []
        for sent in request.json():
            if self.named(store, sent["name"]):
                return self._failed(409, 1003, "secret_name_already_exists")
            if not sent["value"] or not sent["scopes"]:
                return self._failed(400, 1002, "invalid_request")
            now = self.tick().isoformat()
            secret = {
                "id": secrets.token_hex(16),
                "store_id": store,
                "name": sent["name"],
                "comment": sent.get("comment", ""),
                "scopes": sent["scopes"],
                "created": now,
                "modified": now,
                "status": "pending",
                "value": sent["value"],
            }
            self.stores[store]["secrets"][secret["id"]] = secret
            made.append(self._shown(secret))
        return self._envelope(made)

    @route("PATCH", "/accounts/{account}/secrets_store/stores/{store}/secrets/{secret}")
    def edit_secret(self, request: Request, account: str, store: str, secret: str) -> Response:
        found = self.stores.get(store, {"secrets": {}})["secrets"].get(secret)
        if found is None:
            return self._failed(404, 1001, "secret_not_found")
        sent = request.json()
        found |= {name: sent[name] for name in ("value", "comment", "scopes") if name in sent}
        found["modified"], found["status"] = self.tick().isoformat(), "pending"
        return self._envelope(self._shown(found))

    @route("DELETE", "/accounts/{account}/secrets_store/stores/{store}/secrets/{secret}")
    def delete_secret(self, request: Request, account: str, store: str, secret: str) -> Response:
        found = self.stores.get(store, {"secrets": {}})["secrets"].pop(secret, None)
        return self._failed(404, 1001, "secret_not_found") if found is None else self._envelope(self._shown(found))

    # Workers

    @route("GET", "/accounts/{account}/workers/scripts/{script}/secrets")
    def list_worker(self, request: Request, account: str, script: str) -> Response:
        if account != self.account or script not in self.workers:
            return self._failed(404, 10007, "This Worker does not exist on your account.")
        return self._envelope([{"name": name, "type": each["type"]} for name, each in self.workers[script].items()])

    @route("PUT", "/accounts/{account}/workers/scripts/{script}/secrets")
    def put_worker(self, request: Request, account: str, script: str) -> Response:
        if account != self.account or script not in self.workers:
            return self._failed(404, 10007, "This Worker does not exist on your account.")
        sent = request.json()
        self.tick()
        self.workers[script][sent["name"]] = {"type": sent["type"], "text": sent["text"]}
        return self._envelope({"name": sent["name"], "type": sent["type"]})

    @route("DELETE", "/accounts/{account}/workers/scripts/{script}/secrets/{name}")
    def delete_worker(self, request: Request, account: str, script: str, name: str) -> Response:
        if self.workers.get(script, {}).pop(name, None) is None:
            return self._failed(404, 10056, "Binding not found")
        return self._envelope(None)


def wrangler_program() -> tuple[Node, Path]:
    """Its Node, and its script; installed where it is not there."""
    node = bundled_node()
    return node, installed(_LOCK, name="wrangler-tests", node=node) / "wrangler" / "bin" / "wrangler.js"


def wrangler_client(store: CloudflareStore, home: Path) -> Wrangler:
    """Cloudflare's command line client as its users run it; what it reads on stdin is given as `stdin`."""
    node, program = wrangler_program()
    env = {
        "PATH": f"{node.program.parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(home),
        "CLOUDFLARE_API_BASE_URL": store.url,
        "CLOUDFLARE_API_TOKEN": store.token,
        "CLOUDFLARE_ACCOUNT_ID": store.account,
        "WRANGLER_SEND_METRICS": "false",
        "WRANGLER_HIDE_BANNER": "true",
        "NO_COLOR": "1",
        "CI": "1",
    }

    def run(*arguments: str, stdin: str = "") -> str:
        done = subprocess.run(
            [node.program, program, *arguments],
            env=env,
            cwd=home,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
