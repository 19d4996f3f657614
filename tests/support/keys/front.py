"""Stands before a platform and spoils what it answers to whoever makes a key."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ClassVar

from support.lamp import Lamp
from support.stores.server import Fault, Request, Response, Store

Spoil = Callable[[str], Fault]


class NeonFront(Store):
    """Hands on what it is asked. `canaries` are the values that were in answers to a POST for a key."""

    base_path: ClassVar[str] = "/api/v2"

    def __init__(self, lamp: Lamp) -> None:
        self.lamp = lamp
        self.spoil: Spoil | None = None
        #: Whether the platform hears of a POST whose answer is spoilt.
        self.makes = True
        self.canaries: list[bytes] = []
        super().__init__(token=lamp.key)

    def allowed(self, request: Request) -> bool:
        return True

    def answer(self, request: Request) -> Response:
        path = request.path.removeprefix(self.base_path)
        key = request.headers.get("authorization", "").removeprefix("Bearer ")
        body = request.json() if request.body else None
        reply = self.lamp.request(request.method, path, body, key=key, **request.query)
        content = reply.json() if reply.content else None
        if _mints(request) and reply.is_success:
            self.canaries.append(content["key"].encode())
        return Response(reply.status_code, content)

    def fault_for(self, request: Request) -> Fault | None:
        if self.spoil is None or not _mints(request):
            return super().fault_for(request)
        if self.makes:
            value: str = self.answer(request).content["key"]
        else:
            value = f"napi_{secrets.token_hex(32)}"
            self.canaries.append(value.encode())
        return self.spoil(value)


def _mints(request: Request) -> bool:
    return request.method == "POST" and request.path.endswith("/api_keys")


@contextmanager
def neon_front(lamp: Lamp) -> Iterator[NeonFront]:
    front = NeonFront(lamp)
    try:
        yield front
    finally:
        front.close()


def echo(value: str) -> bytes:
    """A refusal that says the value wherever Neon says something."""
    words = {"code": value, "message": f"cannot give you {value}", "request_id": value, "key": value, "detail": [value]}
    return json.dumps(words).encode()


def key_as_text(value: str, **more: object) -> bytes:
    return json.dumps({"id": 1, "key": value, "name": "n", "created_at": "2026-01-01T00:00:00Z", **more}).encode()
