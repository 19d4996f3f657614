"""The key manager: (i) a rotation to five stores, (j) an audit of 5,000 keys under Neon's rate limit."""

from __future__ import annotations

import json
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks.harness import Report, Result, timed
from lamplighter import Neon
from lamplighter.client.pacing import ACCOUNT, ROUTE, Rate
from lamplighter.keys.audit import audit as judge
from lamplighter.keys.inventory import collect
from lamplighter.keys.policy import parse_policy
from support.keys.surroundings import Team, all_stores
from support.lamp import temporary_lamp

FIVE = ("dotenv", "openbao", "aws", "github", "cloudflare")
ORGANIZATIONS, KEYS_EACH = 100, 50
#: For each organization its keys, its members and its projects; who we are, and our own keys.
REQUESTS = 3 * ORGANIZATIONS + 2


def rotation(report: Report, *, rounds: int) -> None:
    """`lamp keys rotate` as a process, with nothing to wait for; and the start of the command alone, beside it."""
    with (
        temporary_lamp(driver="overlay") as lamp,
        all_stores(keychain=False) as stores,
        tempfile.TemporaryDirectory(prefix="lamp-benchmark-") as name,
    ):
        team = Team(lamp, stores, Path(name))
        team.keys("mint", "--name", team.name, *team.to(*FIVE))
        before = lamp.request("GET", "/api_keys").json()
        start = [timed(lambda: team.keys("status")) for _ in range(rounds)]
        whole = [timed(lambda: team.keys("rotate", team.name, "--soak", "0")) for _ in range(rounds)]
        assert len(lamp.request("GET", "/api_keys").json()) == len(before)
    report.add(Result("i rotation", "lamp keys status", "", start))
    report.add(Result("i rotation", "lamp keys rotate, 5 stores", "", whole))


class _Limits:
    """Neon's buckets: what comes without a token is refused."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._buckets: dict[str, tuple[float, float]] = {}
        self.refused = self.served = 0

    def take(self, route: str) -> bool:
        with self._lock:
            now = time.monotonic()
            wanted: list[tuple[str, Rate]] = [("", ACCOUNT), (route, ROUTE)]
            found = {}
            for name, rate in wanted:
                tokens, at = self._buckets.get(name, (rate.capacity, now))
                found[name] = min(rate.capacity, tokens + (now - at) * rate.per_second)
            fine = all(tokens >= 1 for tokens in found.values())
            self._buckets |= {name: (tokens - fine, now) for name, tokens in found.items()}
            self.served, self.refused = self.served + fine, self.refused + (not fine)
            return fine


class _Lists(BaseHTTPRequestHandler):
    """The lists that an audit reads: each organization has keys that were used, and an admin who made them."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        parts = urlsplit(self.path).path.removeprefix("/api/v2/").split("/")
        route = parts[-1]
        fine = self.server.limits.take(f"{parts[0]} {route}")  # type: ignore[attr-defined]
        content = json.dumps(_content(route, parts)).encode() if fine else b"{}"
        self.send_response(200 if fine else 429)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        return


_USER = "11111111-2222-4333-8444-555555555555"
_AT, NOW = "2026-11-01T00:00:00Z", datetime(2026, 11, 22, tzinfo=UTC)


def _content(route: str, parts: list[str]) -> Any:
    if route == "auth":
        return {"account_id": _USER, "auth_method": "api_key_user"}
    if parts[0] == "projects":
        return {"projects": [], "pagination": {"cursor": "end"}}
    if route == "members":
        return {"members": [_member(parts[1])]}
    if parts[0] == "organizations":
        number = int(parts[1].removeprefix("org-"))
        return [_key(number * KEYS_EACH + each) for each in range(KEYS_EACH)]
    return []


def _member(org_id: str) -> dict[str, Any]:
    member = {"id": _USER, "user_id": _USER, "org_id": org_id, "role": "admin", "joined_at": _AT, "has_mfa": True}
    return {"member": member, "user": {"email": "user@example.test", "has_mfa": True}}


def _key(number: int) -> dict[str, Any]:
    return {
        "id": 1000 + number,
        "name": f"service-{number}",
        "created_at": _AT,
        "created_by": {"id": _USER, "name": "user", "image": ""},
        "last_used_at": _AT,
        "last_used_from_addr": "192.0.2.1",
    }


@contextmanager
def _lists() -> Iterator[tuple[str, _Limits]]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Lists)
    limits = server.limits = _Limits()  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/api/v2", limits
    finally:
        server.shutdown()
        server.server_close()


def _policy() -> str:
    lineages = [
        f'[lineage.l{number}]\nscope = "organization"\norg_id = "org-{number}"\nsinks = ["dotenv:{number}.env#KEY"]\n'
        for number in range(ORGANIZATIONS)
    ]
    return "\n".join(["version = 1", *lineages])


def audit(report: Report, *, rounds: int) -> None:
    """5,000 keys of 100 organizations, of a policy that names them all; each run begins with full buckets."""
    policy = parse_policy(_policy())
    times, judged, note = [], [], ""
    for _ in range(rounds):
        with _lists() as (url, limits), Neon(api_key="benchmark", base_url=url) as neon:
            start = time.perf_counter()
            found = collect(neon, policy, journal=None, sinks={})
            middle = time.perf_counter()
            result = judge(found, policy, now=NOW)
            judged.append((time.perf_counter() - middle) * 1000)
            times.append((time.perf_counter() - start) * 1000)
        assert len(found.keys) == ORGANIZATIONS * KEYS_EACH, found.gaps
        assert limits.served == REQUESTS, limits.served
        note = f"{limits.served} requests, {limits.refused} refused; {len(result.findings)} findings"
    report.add(Result("j audit", "collect and judge", "5000", times, note))
    report.add(Result("j audit", "of that, judging", "5000", judged))
