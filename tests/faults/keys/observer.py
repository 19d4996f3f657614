"""A small Neon of its own that watches: within every request it looks whether what must always hold, holds.

One server for many scenarios at once; the bearer tells which one a request belongs to. It can keep the answers to POST
and DELETE back after it has done what they ask.
"""

from __future__ import annotations

import json
import secrets
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from lamplighter.keys.fold import State, fold
from lamplighter.keys.journal import FILE, read_journal

USER = "6f1b0d62-8a2c-4d1f-9f6e-0c6d1c1f7a11"
AT = "2026-01-02T03:04:05Z"


@dataclass
class FakeKey:
    id: int
    name: str
    value: str
    live: bool = True
    used: int = 0
    address: str = ""

    def shown(self) -> dict[str, Any]:
        used = f"2026-01-02T03:{self.used // 60:02}:{self.used % 60:02}Z" if self.used else None
        return {
            "id": self.id,
            "name": self.name,
            "created_at": AT,
            "last_used_at": used,
            "last_used_from_addr": self.address,
        }


@dataclass
class World:
    """The keys of one scenario, the files that its sinks are, and what was seen to be wrong."""

    directory: Path
    sinks: list[Path] = field(default_factory=list)
    keys: dict[int, FakeKey] = field(default_factory=dict)
    names: Counter[str] = field(default_factory=Counter)
    drops: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    lock: threading.RLock = field(default_factory=threading.RLock)
    next_id: int = 1
    _known: tuple[tuple[int, int], State] = ((-1, -1), State())

    @property
    def state_dir(self) -> Path:
        return self.directory / "state"

    def make(self, name: str) -> FakeKey:
        key = FakeKey(id=self.next_id, name=name, value="napi_" + secrets.token_hex(32))
        self.next_id += 1
        self.keys[key.id] = key
        return key

    @property
    def live(self) -> set[int]:
        return {key.id for key in self.keys.values() if key.live}

    def state(self) -> State:
        """What the journal says; read again when it has changed."""
        facts = (self.state_dir / FILE).stat()
        version = facts.st_size, facts.st_mtime_ns
        if version != self._known[0]:
            self._known = version, fold(read_journal(self.state_dir))
        return self._known[1]

    def holder_of(self, sink: Path) -> FakeKey | None:
        text = sink.read_text() if sink.exists() else ""
        return next((key for key in self.keys.values() if key.value and key.value in text), None)

    def observe(self, when: str) -> None:
        """I1 by what the journal says and by what the sinks really hold; I4 for the journal; I7 for names."""
        with self.lock:
            live = self.live
            for lineage in self.state().lineages.values():
                for address, ids in lineage.may_hold.items():
                    if not ids <= live:
                        self.wrong.append(f"{when}: I1: {address} may hold {sorted(ids - live)}, not live")
            for sink in self.sinks:
                held = self.holder_of(sink)
                if held is None or not held.live:
                    self.wrong.append(f"{when}: I1: {sink.name} holds {held and held.id}, not live")
            content = (self.state_dir / FILE).read_text()
            self.wrong.extend(
                f"{when}: I4: {key.id} in the journal" for key in self.keys.values() if key.value in content
            )
            self.wrong.extend(f"{when}: I7: {name} asked for twice" for name, count in self.names.items() if count > 1)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body in one packet: the second of two waits for the client to acknowledge the first.
    wbufsize = 1 << 16
    server: Observer

    def log_message(self, *args: Any) -> None:
        """Silence."""

    def _handle(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        body = json.loads(self.rfile.read(length)) if length else {}
        found = self.server.owner(self.headers.get("authorization", "").removeprefix("Bearer "))
        if found is None:
            self._answer(401, {"message": "supplied credentials do not pass authentication", "code": ""})
            return
        world, key = found
        with world.lock:
            key.used += 1
            key.address = "127.0.0.1"
            status, answer = self._route(world, body)
            world.observe(f"{self.command} {self.path}")
            dropped = world.drops[self.command] > 0
            world.drops[self.command] -= dropped
        if dropped:
            self.close_connection = True
            return
        self._answer(status, answer)

    do_GET = do_POST = do_DELETE = _handle  # noqa: N815 - the names that http.server looks for

    def _route(self, world: World, body: dict[str, Any]) -> tuple[int, Any]:
        path = self.path.partition("?")[0].removeprefix("/api/v2")
        if self.command == "GET":
            return self._get(world, path)
        if self.command == "POST" and path == "/api_keys":
            world.names[body["key_name"]] += 1
            key = world.make(body["key_name"])
            self.server.register(world, key)
            return 200, {**key.shown(), "key": key.value, "created_by": USER}
        found = world.keys.get(int(path.rpartition("/")[2]))
        if found is None or not found.live:
            return 404, {"message": "API key not found", "code": ""}
        found.live = False
        return 200, {**found.shown(), "created_by": USER, "revoked": True}

    def _get(self, world: World, path: str) -> tuple[int, Any]:
        if path == "/auth":
            return 200, {"account_id": USER, "auth_method": "api_key_user"}
        if path == "/users/me":
            return 200, {"id": USER}
        creator = {"id": USER, "name": "somebody", "image": ""}
        return 200, [{**key.shown(), "created_by": creator} for key in world.keys.values() if key.live]

    def _answer(self, status: int, answer: Any) -> None:
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


class Observer(ThreadingHTTPServer):
    daemon_threads = True
    # Hundreds of short connections at once.
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self._owners: dict[str, tuple[World, FakeKey]] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/api/v2"

    def register(self, world: World, key: FakeKey) -> None:
        self._owners[key.value] = (world, key)

    def owner(self, value: str) -> tuple[World, FakeKey] | None:
        found = self._owners.get(value)
        return found if found and found[1].live else None

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that are killed leave their connections: that is what this is for."""


@contextmanager
def observing() -> Iterator[Observer]:
    server = Observer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
