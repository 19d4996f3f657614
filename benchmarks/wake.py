"""(m) A connection that wakes a sleeping endpoint, (n) one to an awake one by each way, (o) the memory of idle ones.

For (m) and (n) by a real platform and psycopg. HAProxy and PgBouncer are left out where they are not installed.
"""

from __future__ import annotations

import asyncio
import os
import re
import resource
import shutil
import socket
import struct
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import unquote, urlsplit

import psutil
import psycopg

from benchmarks.harness import Report, Result, first_answer, timed
from benchmarks.starting import ByHand
from lamplighter import __version__
from lamplighter.compute.user import current_or_system_user, drop_prefix
from lamplighter.gateway import link, spawning
from lamplighter.gateway.ports import Backend, Hello, Listening, Route, SetRoutes
from support.lamp import Lamp, uri_of, wait_for

KIB = 1024
IDLE = 10_000
#: With TLS each client costs the measuring process as much as the gateway.
IDLE_TLS = 1_000
#: AuthenticationOk, and ReadyForQuery.
LET_IN = b"R" + struct.pack("!ii", 8, 0) + b"Z" + struct.pack("!i", 5) + b"I"
FILES = 65536


def shares(milliseconds: Sequence[float]) -> str:
    """The slow ones, for a note."""
    ordered = sorted(milliseconds)
    p95, p99 = (ordered[min(len(ordered) - 1, int(share * len(ordered)))] for share in (0.95, 0.99))
    return f"p95 {p95:.1f}, p99 {p99:.1f} ms"


def first_row(uri: str) -> None:
    with psycopg.connect(uri, connect_timeout=60) as connection:
        connection.execute("select 1")


# --- (m)


def wakes(lamp: Lamp, report: Report, *, driver: str, rounds: int) -> None:
    """Connect to first row of an endpoint that sleeps; beside it a start by request, and pg_ctl. In turns."""
    made = lamp.project(name="wakes")
    project, endpoint, uri = made["project"]["id"], made["endpoints"][0]["id"], uri_of(made)
    place = f"/projects/{project}/endpoints/{endpoint}"

    def asleep() -> bool:
        return bool(lamp.call("GET", place)["endpoint"]["current_state"] == "idle")

    def start() -> None:
        lamp.call("POST", f"{place}/start")
        first_answer(uri)

    def lull() -> None:
        lamp.settle(project)
        lamp.call("POST", f"{place}/suspend")
        lamp.settle(project)
        wait_for(asleep, what="the suspension")

    times: dict[str, list[float]] = {
        name: [] for name in ("connect", "start by request, connect", "pg_ctl start, connect")
    }
    with tempfile.TemporaryDirectory() as name:
        cluster = ByHand(Path(name))
        cluster.create()
        cluster.stop()
        # The first round fills caches.
        for number in range(rounds + 1):
            lull()
            by_wake = timed(lambda: first_row(uri))
            lull()
            by_request = timed(start)
            by_hand = timed(cluster.start)
            cluster.stop()
            if number:
                for subject, value in zip(times, (by_wake, by_request, by_hand), strict=True):
                    times[subject].append(value)
    for subject, values in times.items():
        report.add(
            Result(
                "m wake",
                f"{subject} ({driver})" if "pg_ctl" not in subject else subject,
                "40 MB",
                values,
                shares(values),
            )
        )
    lamp.settle(project)
    lamp.call("DELETE", f"/projects/{project}")


# --- (n)


@dataclass(frozen=True)
class Server:
    """A compute behind the gateway: where it listens itself, and a role of it."""

    uri: str
    private: int
    role: str
    password: str
    database: str

    def by(self, port: int, sslmode: str) -> str:
        return f"postgresql://{self.role}:{self.password}@127.0.0.1:{port}/{self.database}?sslmode={sslmode}"

    @property
    def public(self) -> int:
        port = urlsplit(self.uri).port
        assert port is not None
        return port


def server_of(uri: str) -> Server:
    parts = urlsplit(uri)
    with psycopg.connect(uri) as connection:
        # Not the port that we went to: the gateway's connection is another one.
        (port,) = connection.execute("select inet_server_port()").fetchone() or (0,)
    return Server(uri, port, parts.username or "", unquote(parts.password or ""), parts.path[1:])


def connecting(lamp: Lamp, report: Report, *, driver: str, rounds: int) -> None:
    """Connect and one row, awake, each way in turns; ratios are of rounds."""
    made = lamp.project(name="connects", default_endpoint_settings={"suspend_timeout_seconds": -1})
    project, branch = made["project"]["id"], made["branch"]["id"]
    server = server_of(uri_of(made))
    wanted = {"branch_id": branch, "role_name": server.role, "database_name": server.database}
    pooled = urlsplit(lamp.call("GET", f"/projects/{project}/connection_uri", **wanted, pooled="true")["uri"]).port
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lamp-bench-")))
        ways = {"direct": server.private, "gateway": server.public}
        if pooled not in (None, server.public):
            ways["gateway, pooled"] = pooled
        if shutil.which("haproxy"):
            ways["HAProxy"] = stack.enter_context(haproxy(place, server))
        if shutil.which("pgbouncer"):
            ways["PgBouncer"] = stack.enter_context(pgbouncer(place, server, lamp.data_dir / "tls"))
        for sslmode in ("disable", "require"):
            turns = {name: partial(first_row, server.by(port, sslmode)) for name, port in ways.items()}
            for name, values in in_turns(turns, rounds).items():
                benchmark = "n connect" if sslmode == "disable" else "n TLS"
                report.add(Result(benchmark, f"{name} ({driver})", "awake", values, shares(values)))
    lamp.settle(project)
    lamp.call("DELETE", f"/projects/{project}")


def in_turns(ways: Mapping[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each, another one first in each round."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    names = list(ways)
    for name in names:
        ways[name]()
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            found[name].append(timed(ways[name]))
    return found


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


@contextmanager
def running(argv: Sequence[str], uri: str) -> Iterator[None]:
    with subprocess.Popen(list(argv), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            first_answer(uri, seconds=30)
            yield
        finally:
            process.terminate()


@contextmanager
def haproxy(place: Path, server: Server) -> Iterator[int]:
    """TCP mode, as `relay.py` has it."""
    port, config = free_port(), place / "haproxy.cfg"
    config.write_text(
        "global\n  nbthread 1\n  maxconn 900\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1h\n"
        f"  timeout server 1h\nlisten all\n  bind 127.0.0.1:{port}\n  server one 127.0.0.1:{server.private}\n"
    )
    with running(["haproxy", "-db", "-f", str(config)], server.by(port, "disable")):
        yield port


@contextmanager
def pgbouncer(place: Path, server: Server, tls: Path) -> Iterator[int]:
    """Transaction mode, SCRAM on both sides, TLS towards the client with the platform's certificate."""
    port, config, owner = free_port(), place / "pgbouncer.ini", current_or_system_user()
    place.chmod(0o755)
    (place / "users.txt").write_text(f'"{server.role}" "{server.password}"\n')
    for suffix in ("key", "crt"):
        copied = Path(shutil.copy(tls / f"server.{suffix}", place / f"bouncer.{suffix}"))
        copied.chmod(0o600)
        os.chown(copied, *owner)
    config.write_text(
        f"[databases]\n* = host=127.0.0.1 port={server.private}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n"
        f"listen_port = {port}\nunix_socket_dir =\nauth_type = scram-sha-256\nauth_file = {place}/users.txt\n"
        "pool_mode = transaction\ndefault_pool_size = 64\nmax_client_conn = 1000\n"
        f"client_tls_sslmode = allow\nclient_tls_key_file = {place}/bouncer.key\n"
        f"client_tls_cert_file = {place}/bouncer.crt\nserver_tls_sslmode = disable\n"
    )
    with running([*drop_prefix(owner), "pgbouncer", "-q", str(config)], server.by(port, "disable")):
        yield port


# --- (o)


def pss(pid: int) -> int:
    """Bytes of memory, shared pages split among those who share them, without what the kernel keeps for sockets."""
    found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * KIB


class Letting(threading.Thread):
    """A Postgres that lets everybody in and then says nothing: no real one has 10,000 sessions."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.port = 0
        self.ready = threading.Event()
        self.loop: asyncio.AbstractEventLoop
        self.over: asyncio.Event

    def run(self) -> None:
        asyncio.run(self.serve())

    async def serve(self) -> None:
        class Session(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                assert isinstance(transport, asyncio.Transport)
                self.transport = transport

            def data_received(self, _data: bytes) -> None:
                self.transport.write(LET_IN)

        self.loop, self.over = asyncio.get_running_loop(), asyncio.Event()
        server = await self.loop.create_server(Session, "127.0.0.1", 0, backlog=4096)
        self.port = int(server.sockets[0].getsockname()[1])
        self.ready.set()
        await self.over.wait()
        server.close()

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.over.set)
        self.join()


class Gateway:
    """A gateway by itself, with one route, which is awake."""

    def __init__(self, place: Path, backend_port: int) -> None:
        path = place / "gateway.sock"
        self.port = free_port()
        self.process = subprocess.Popen(spawning.command(path, place / "gateway.log"), start_new_session=True)
        wait_for(lambda: spawning.answers(path), what="the gateway")
        self.link = socket.socket(socket.AF_UNIX)
        self.link.connect(str(path))
        route = Route("ep-idle", "idle", "awake", self.port, compute=Backend("127.0.0.1", backend_port, tls=False))
        self.link.sendall(link.to_gateway(Hello(__version__, Listening())) + link.to_gateway(SetRoutes(1, (route,))))
        # It goes on to tell what it does, and shall not wait for us.
        threading.Thread(target=self.listen, daemon=True).start()
        wait_for(self.accepts, what="the endpoint's port")
        (relay,) = psutil.Process(self.process.pid).children()
        self.pids = {"front": self.process.pid, "relay": relay.pid}

    def listen(self) -> None:
        with suppress(OSError):
            while self.link.recv(65536):
                pass

    def accepts(self) -> bool:
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port)).close()
            return True
        return False

    def close(self) -> None:
        self.process.terminate()
        self.process.wait()
        self.link.close()


def startup(role: str, database: str) -> bytes:
    words = b"".join(word.encode() + b"\0" for word in ("user", role, "database", database)) + b"\0"
    return struct.pack("!ii", len(words) + 8, 3 << 16) + words


def enter(port: int, hello: bytes) -> socket.socket:
    """A raw client that has logged in."""
    client = socket.create_connection(("127.0.0.1", port))
    client.sendall(hello)
    said = b""
    while not said.endswith(LET_IN):
        piece = client.recv(64)
        assert piece, "refused"
        said += piece
    return client


def most_connections(wanted: int) -> int:
    """As many as the limit of files allows: both far ends are this process's, and both near ones the relay's."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for limit in (max(hard, FILES), hard):
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
            break
    return min(wanted, (resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 400) // 2)


def idle(report: Report, *, connections: int = IDLE) -> None:
    """Front and relay with clients that have logged in by a startup, and rest: the front has passed them on."""
    count = most_connections(connections)
    hello = startup("somebody", "something")
    backend = Letting()
    backend.start()
    assert backend.ready.wait(30)
    with tempfile.TemporaryDirectory(prefix="lamp-bench-") as name:
        gateway = Gateway(Path(name), backend.port)
        clients: list[socket.socket] = []
        try:
            clients += [enter(gateway.port, hello) for _ in range(100)]
            times, note = hold(gateway.pids, lambda: clients.append(enter(gateway.port, hello)), count - 100)
            report.add(Result("o idle", "front and relay", f"{count}", times, note))
        finally:
            for client in clients:
                client.close()
            gateway.close()
            backend.close()


def idle_tls(lamp: Lamp, report: Report, *, connections: int = IDLE_TLS) -> None:
    """The same where TLS ends in the front: libpq's clients at a pooled address."""
    made = lamp.project(name="idle", default_endpoint_settings={"suspend_timeout_seconds": -1})
    project, direct = made["project"]["id"], uri_of(made)
    role, database = urlsplit(direct).username, urlsplit(direct).path[1:]
    wanted = {"branch_id": made["branch"]["id"], "role_name": role, "database_name": database}
    uri = lamp.call("GET", f"/projects/{project}/connection_uri", **wanted, pooled="true")["uri"]
    if uri == direct:
        return
    count = most_connections(connections)
    first_row(direct)
    (front,) = lamp.gateways()
    (relay,) = psutil.Process(front).children()
    clients = [psycopg.connect(uri) for _ in range(20)]
    try:
        pids = {"front": front, "relay": relay.pid}
        times, note = hold(pids, lambda: clients.append(psycopg.connect(uri)), count - 20)
        report.add(Result("o idle", "TLS ends in the front", f"{count}", times, note))
    finally:
        for client in clients:
            client.close()
    lamp.settle(project)
    lamp.call("DELETE", f"/projects/{project}")


def hold(pids: Mapping[str, int], connect: Callable[[], None], count: int) -> tuple[list[float], str]:
    """Milliseconds of each connection, and what they have cost."""
    before = {name: pss(pid) for name, pid in pids.items()}
    times = [timed(connect) for _ in range(count)]
    cost = {name: (pss(pid) - before[name]) / count for name, pid in pids.items()}
    each = ", ".join(f"{name} {value / KIB:.2f}" for name, value in cost.items())
    whole = sum(pss(pid) for pid in pids.values()) / 2**20
    return times, f"{sum(cost.values()) / KIB:.2f} KiB a connection ({each}), {whole:.0f} MiB in all"
