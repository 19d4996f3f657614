"""(p) pgbench by every way into a real platform (gateway, pooled address, the kernel's redirect), and by others beside.

Two platforms, one of them with `--redirect` (root, nftables), each compared with its own compute at its private port.
HAProxy and PgBouncer lead to the first one's. `python -m benchmarks.through` runs it alone.
"""

from __future__ import annotations

import argparse
import re
import shutil
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.harness import Report, Result, tool
from benchmarks.relay import CLIENTS, SCALE, SCRIPTS
from benchmarks.wake import Server, haproxy, pgbouncer, server_of
from lamplighter.platform.redirect import unavailable
from support.lamp import Lamp, temporary_lamp, uri_of

MODES = ("disable", "require")
DIRECT = "direct"
LED_DIRECT = "direct, beside the redirect"


@dataclass(frozen=True, slots=True)
class Way:
    """A port of a server, and the way it is compared with besides HAProxy and PgBouncer."""

    name: str
    server: Server
    port: int
    reference: str


def ready(lamp: Lamp) -> tuple[Server, int]:
    """An endpoint that stays awake, with pgbench's tables, and the port of its pooled address."""
    made = lamp.project(name="through", default_endpoint_settings={"suspend_timeout_seconds": -1})
    server = server_of(uri_of(made))
    tool("pgbench", "-i", "-q", "-I", "dtGvp", "-s", str(SCALE), server.by(server.private, "disable"))
    wanted = {"branch_id": made["branch"]["id"], "role_name": server.role, "database_name": server.database}
    path = f"/projects/{made['project']['id']}/connection_uri"
    port = urlsplit(lamp.call("GET", path, **wanted, pooled="true")["uri"]).port
    assert port is not None
    return server, port


@contextmanager
def ways() -> Iterator[list[Way]]:
    with ExitStack() as stack:
        plain = stack.enter_context(temporary_lamp())
        server, pooled = ready(plain)
        found = [
            Way(DIRECT, server, server.private, DIRECT),
            Way("gateway", server, server.public, DIRECT),
            Way("gateway, pooled", server, pooled, DIRECT),
        ]
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lamp-bench-")))
        if shutil.which("haproxy"):
            found.append(Way("HAProxy", server, stack.enter_context(haproxy(place, server)), DIRECT))
        if shutil.which("pgbouncer"):
            port = stack.enter_context(pgbouncer(place, server, plain.data_dir / "tls"))
            found.append(Way("PgBouncer", server, port, DIRECT))
        if unavailable() is None:
            led, _ = ready(stack.enter_context(temporary_lamp(options=("--redirect",))))
            found.append(Way(LED_DIRECT, led, led.private, LED_DIRECT))
            found.append(Way("redirect", led, led.public, LED_DIRECT))
        yield found


def rate(way: Way, script: str, clients: int, sslmode: str, seconds: int) -> float:
    """Transactions a second, without the time that connecting takes."""
    arguments = (*SCRIPTS[script], "-n", "-c", str(clients), "-T", str(seconds), way.server.by(way.port, sslmode))
    said = tool("pgbench", *arguments).stdout.decode()
    found = re.search(r"tps = ([\d.]+) \(without initial", said)
    assert found is not None, said
    return float(found[1])


def run(
    report: Report,
    *,
    rounds: int,
    seconds: int = 3,
    clients: Sequence[int] = CLIENTS,
    modes: Sequence[str] = MODES,
    scripts: Sequence[str] = tuple(SCRIPTS),
) -> None:
    """Rounds in which each way has its turn, another one first each time. Ratios are medians of the rounds'."""
    with ways() as found:
        for mode in modes:
            for script in scripts:
                for count in clients:
                    rates: dict[str, list[float]] = {way.name: [] for way in found}
                    for number in range(rounds):
                        first = number % len(found)
                        for way in found[first:] + found[:first]:
                            rates[way.name].append(rate(way, script, count, mode, seconds))
                    tell(report, found, rates, f"p {script}{' TLS' if mode == 'require' else ''}", count)


def tell(report: Report, found: Sequence[Way], rates: dict[str, list[float]], benchmark: str, clients: int) -> None:
    for way in found:
        ours = rates[way.name]
        others = [name for name in (way.reference, "HAProxy", "PgBouncer") if name in rates and name != way.name]
        ratios = [
            f"{statistics.median(one / other for one, other in zip(ours, rates[name], strict=True)):.2f} of {name}"
            for name in others
        ]
        note = f"{statistics.median(ours):7.0f} tps; {', '.join(ratios)}"
        report.add(Result(benchmark, way.name, f"c={clients}", [clients / tps * 1000 for tps in ours], note))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--clients", type=int, nargs="+", default=list(CLIENTS))
    parser.add_argument("--modes", nargs="+", default=list(MODES))
    parser.add_argument("--scripts", nargs="+", default=list(SCRIPTS), choices=list(SCRIPTS))
    parser.add_argument("--results", type=Path, default=Path(__file__).with_name("results") / "through.json")
    chosen = parser.parse_args()
    run(
        Report(chosen.results),
        rounds=chosen.rounds,
        seconds=chosen.seconds,
        clients=chosen.clients,
        modes=chosen.modes,
        scripts=chosen.scripts,
    )


if __name__ == "__main__":
    main()
