"""(k) pgbench through the relay, beside HAProxy, PgBouncer and nothing, and (l) the memory of 10,000 idle connections.

`python -m benchmarks.relay` runs them alone. HAProxy and PgBouncer are left out where they are not installed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.harness import Report, Result, build, first_answer, tool
from lamplighter.compute.user import current_or_system_user, drop_prefix
from lamplighter.gateway.relay_fallback import raise_limit
from lamplighter.gateway.relaying import Relay, program
from support.waiting import wait_for

CLIENTS = (1, 8, 32)
SCRIPTS = {"-S": ("-S",), "TPC-B": ("-b", "tpcb-like")}
#: As many branches as clients: fewer would have the clients of TPC-B wait for each other.
SCALE = 32
COMPILED = "relay (C)"
PYTHON = "relay (Python)"
REFERENCE = "HAProxy"
_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(slots=True)
class Way:
    """A way to the server: where it listens, and the process between (none for direct)."""

    name: str
    port: int
    pid: int | None = None


@dataclass(slots=True)
class Series:
    """Of one path, script and number of clients: transactions a second, and CPU of the process between, in us each."""

    tps: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


@contextmanager
def server(place: Path) -> Iterator[int]:
    """A Postgres on a TCP port of loopback that trusts everybody, with TLS and pgbench's tables."""
    owner, found, port = current_or_system_user(), build(), free_port()
    place.chmod(0o755)
    data = place / "data"
    data.mkdir()
    os.chown(data, *owner)
    prefix, env = drop_prefix(owner), {**os.environ, **found.environment()}
    quiet = {"env": env, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    initdb = (str(found.program("initdb")), "-D", str(data), "-U", "postgres", "-A", "trust", "-E", "UTF8")
    subprocess.run([*prefix, *initdb, "--locale=C.UTF-8"], check=True, **quiet)
    subject = ("-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=localhost")
    pair = ("-keyout", str(data / "server.key"), "-out", str(data / "server.crt"))
    subprocess.run(["openssl", "req", *subject, *pair, "-days", "2"], check=True, **quiet)
    for path in (data / "server.key", data / "server.crt"):
        os.chown(path, *owner)
        path.chmod(0o600)
    # Commits do not wait for the disk, which is not what is measured.
    settings = ("ssl=on", "max_connections=300", "synchronous_commit=off", f"port={port}", "unix_socket_directories=")
    words = [word for setting in settings for word in ("-c", setting)]
    running = subprocess.Popen([*prefix, str(found.program("postgres")), "-D", str(data), *words], **quiet)
    try:
        first_answer(uri(port))
        tool("pgbench", "-i", "-q", "-I", "dtGvp", "-s", str(SCALE), uri(port))
        yield port
    finally:
        running.terminate()
        running.wait()


def uri(port: int, sslmode: str = "disable") -> str:
    return f"postgresql://postgres@127.0.0.1:{port}/postgres?sslmode={sslmode}"


class Door(threading.Thread):
    """Accepts, connects and hands over to a relay, as the front does, in a thread that is idle while we measure."""

    def __init__(self, argv: list[str], backend_port: int) -> None:
        super().__init__(daemon=True)
        self.argv = argv
        self.backend_port = backend_port
        self.listening = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self.listening.setblocking(False)
        self.port = int(self.listening.getsockname()[1])
        self.pid = 0
        self.ready = threading.Event()
        self.loop: asyncio.AbstractEventLoop
        self.over: asyncio.Event

    def run(self) -> None:
        asyncio.run(self.serve())

    async def serve(self) -> None:
        self.loop, self.over = asyncio.get_running_loop(), asyncio.Event()
        relay = await Relay.start(self.argv)
        self.pid = relay.pid
        self.ready.set()
        accepting = asyncio.create_task(self.accept(relay))
        await self.over.wait()
        accepting.cancel()
        await relay.close()
        self.listening.close()

    async def accept(self, relay: Relay) -> None:
        number = 0
        while True:
            client, _ = await self.loop.sock_accept(self.listening)
            backend = socket.socket()
            backend.setblocking(False)
            await self.loop.sock_connect(backend, ("127.0.0.1", self.backend_port))
            number += 1
            relay.hand_over(number, client, backend)


@contextmanager
def door(name: str, argv: list[str], backend_port: int) -> Iterator[Way]:
    thread = Door(argv, backend_port)
    thread.start()
    assert thread.ready.wait(30), f"{name} did not start"
    try:
        yield Way(name, thread.port, thread.pid)
    finally:
        thread.loop.call_soon_threadsafe(thread.over.set)
        thread.join()


@contextmanager
def running(argv: Sequence[str], port: int, name: str, *, check: bool = True) -> Iterator[Way]:
    with subprocess.Popen(list(argv), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            if check:
                first_answer(uri(port), seconds=30)
            else:
                wait_for(lambda: listens(port), what=name)
            yield Way(name, port, process.pid)
        finally:
            process.terminate()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def haproxy(place: Path, backend_port: int, *, most: int = 1000, check: bool = True) -> Iterator[Way]:
    port, config = free_port(), place / "haproxy.cfg"
    config.write_text(
        f"global\n  nbthread 1\n  maxconn {most}\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1h\n"
        f"  timeout server 1h\nlisten all\n  bind 127.0.0.1:{port}\n  server one 127.0.0.1:{backend_port}\n"
    )
    with running(["haproxy", "-db", "-f", str(config)], port, REFERENCE, check=check) as path:
        yield path


@contextmanager
def pgbouncer(place: Path, backend_port: int) -> Iterator[Way]:
    """Transaction mode, over TCP as the others; TLS towards the client with the server's certificate."""
    port, config = free_port(), place / "pgbouncer.ini"
    owner = current_or_system_user()
    (place / "users.txt").write_text('"postgres" ""\n')
    for suffix in ("key", "crt"):
        shutil.copy(place / "data" / f"server.{suffix}", place / f"bouncer.{suffix}")
        os.chown(place / f"bouncer.{suffix}", *owner)
    config.write_text(
        f"[databases]\npostgres = host=127.0.0.1 port={backend_port} user=postgres\n[pgbouncer]\n"
        f"listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = trust\n"
        f"auth_file = {place}/users.txt\npool_mode = transaction\ndefault_pool_size = 64\nmax_client_conn = 1000\n"
        f"client_tls_sslmode = allow\nclient_tls_key_file = {place}/bouncer.key\n"
        f"client_tls_cert_file = {place}/bouncer.crt\nserver_tls_sslmode = disable\n"
    )
    with running([*drop_prefix(owner), "pgbouncer", "-q", str(config)], port, "PgBouncer") as path:
        yield path


def cpu_of(path: Way) -> float:
    """Seconds that the process between has used."""
    if path.pid is None:
        return 0.0
    fields = Path(f"/proc/{path.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def pgbench(path: Way, script: str, clients: int, sslmode: str, seconds: int) -> tuple[float, float]:
    """Transactions a second, and microseconds of CPU of the process between for each."""
    before = cpu_of(path)
    arguments = (*SCRIPTS[script], "-n", "-c", str(clients), "-T", str(seconds), uri(path.port, sslmode))
    said = tool("pgbench", *arguments).stdout.decode()
    done = re.search(r"transactions actually processed: (\d+)", said)
    rate = re.search(r"tps = ([\d.]+) \(without initial", said)
    assert done is not None, said
    assert rate is not None, said
    return float(rate[1]), (cpu_of(path) - before) / max(1, int(done[1])) * 1e6


def throughput(
    report: Report,
    *,
    rounds: int,
    seconds: int,
    clients: Sequence[int] = CLIENTS,
    modes: Sequence[str] = ("disable", "require"),
    scripts: Sequence[str] = tuple(SCRIPTS),
    only: Sequence[str] = (),
    extra: dict[str, list[str]] | None = None,
) -> None:
    """Rounds in which each way has its turn, so that other work hits all alike. Ratios are of rounds."""
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lamp-bench-")))
        backend_port = stack.enter_context(server(place))
        paths = [Way("direct", backend_port)]
        for name, argv in {**relays(), **(extra or {})}.items():
            paths.append(stack.enter_context(door(name, argv, backend_port)))
        if shutil.which("haproxy"):
            paths.append(stack.enter_context(haproxy(place, backend_port)))
        if shutil.which("pgbouncer"):
            paths.append(stack.enter_context(pgbouncer(place, backend_port)))
        paths = [path for path in paths if not only or path.name in only]
        for mode in modes:
            for script in scripts:
                for count in clients:
                    series = {path.name: Series() for path in paths}
                    for number in range(rounds):
                        # Another order each round: who comes after whom must not matter.
                        for path in paths[number % len(paths) :] + paths[: number % len(paths)]:
                            tps, cpu = pgbench(path, script, count, mode, seconds)
                            series[path.name].tps.append(tps)
                            series[path.name].cpu.append(cpu)
                    tell(report, series, f"k {script}{' TLS' if mode == 'require' else ''}", count)


def relays() -> dict[str, list[str]]:
    found = program()
    compiled = {COMPILED: [str(found)]} if found else {}
    return {**compiled, PYTHON: [sys.executable, "-m", "lamplighter.gateway.relay_fallback"]}


class Accepting(threading.Thread):
    """A backend that says nothing, and keeps what it accepts."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.listening = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self.port = int(self.listening.getsockname()[1])
        self.kept: list[socket.socket] = []

    def run(self) -> None:
        with suppress(OSError):
            while True:
                self.kept.append(self.listening.accept()[0])

    def close(self) -> None:
        self.listening.shutdown(socket.SHUT_RDWR)
        self.listening.close()
        self.join()
        for each in self.kept:
            each.close()


def idle(report: Report, *, connections: int = 10_000) -> None:
    """Memory of the process between for each idle connection; kernel memory, which is the same for all, not counted.

    Fewer than asked for where the limit of files is too low: this process has both far ends.
    """
    most = (raise_limit() - 400) // 2
    count = min(connections, most)
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lamp-bench-")))
        for name, argv in relays().items():
            with accepting() as backend, door(name, argv, backend.port) as path:
                hold(report, path, backend, count)
        if shutil.which("haproxy"):
            with accepting() as backend, haproxy(place, backend.port, most=count + 100, check=False) as path:
                hold(report, path, backend, count)


@contextmanager
def accepting() -> Iterator[Accepting]:
    backend = Accepting()
    backend.start()
    try:
        yield backend
    finally:
        backend.close()


def hold(report: Report, path: Way, backend: Accepting, count: int) -> None:
    before, clients = resident(path), []
    started = time.perf_counter()
    # What haproxy() tried first may be there already.
    already = len(backend.kept)
    try:
        for number in range(count):
            clients.append(socket.create_connection(("127.0.0.1", path.port)))
            while len(backend.kept) < already + number - 500:
                time.sleep(0.001)
        while len(backend.kept) < already + count:
            time.sleep(0.01)
        took = (time.perf_counter() - started) * 1000
        cost = (resident(path) - before) / count
        note = f"{cost:.0f} bytes a connection, {resident(path) / 1e6:.1f} MB in all"
        report.add(Result("l idle", path.name, f"n={count}", [took], note))
    finally:
        for client in clients:
            client.close()


def resident(path: Way) -> int:
    return int(Path(f"/proc/{path.pid}/statm").read_text().split()[1]) * resource.getpagesize()


def ratio(ours: Series, theirs: Series) -> float:
    return statistics.median(one / other for one, other in zip(ours.tps, theirs.tps, strict=True))


def tell(report: Report, series: dict[str, Series], benchmark: str, clients: int) -> None:
    for name, found in series.items():
        ratios = [
            f"{ratio(found, series[other]):.2f} of {other}"
            for other in (REFERENCE, "PgBouncer", "direct")
            if other in series and other != name
        ]
        note = (
            f"{statistics.median(found.tps):7.0f} tps, {statistics.median(found.cpu):5.1f} us CPU; {', '.join(ratios)}"
        )
        latencies = [clients / tps * 1000 for tps in found.tps]
        report.add(Result(benchmark, name, f"c={clients}", latencies, note))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--clients", type=int, nargs="+", default=list(CLIENTS))
    parser.add_argument("--modes", nargs="+", default=["disable", "require"])
    parser.add_argument("--scripts", nargs="+", default=list(SCRIPTS), choices=list(SCRIPTS))
    parser.add_argument("--relay", nargs=2, action="append", default=[], metavar=("NAME", "PROGRAM"))
    parser.add_argument("--idle", action="store_true", help="the memory of idle connections instead")
    parser.add_argument("--only", nargs="+", default=[], metavar="PATH")
    parser.add_argument("--results", type=Path, default=Path(__file__).with_name("results") / "relay.json")
    chosen = parser.parse_args()
    report = Report(chosen.results)
    if chosen.idle:
        idle(report)
        return
    throughput(
        report,
        rounds=chosen.rounds,
        seconds=chosen.seconds,
        clients=chosen.clients,
        modes=chosen.modes,
        scripts=chosen.scripts,
        only=chosen.only,
        extra={name: [path] for name, path in chosen.relay},
    )


if __name__ == "__main__":
    main()
