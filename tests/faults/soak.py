"""A day in minutes: endpoints fall asleep and are woken, thousands of times, while everything is killed now and then.

    cd tests && python -m faults.soak --cycles 2000 --endpoints 50

Each connection must be served or get an error of Postgres, no commit may be lost, nobody may reach another endpoint,
and nothing may be left in the end. Which client does what, and what is killed when, follow from the seed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import shutil
import socket
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import httpx2

from faults import soak_leaks, world
from faults.soak_client import Place, Watch, connect, reached
from faults.soak_record import Cut, NotServed, Record, Strike, percentiles
from faults.soak_strikes import Strikes
from faults.soak_visits import WEIGHTS, Visits
from lamplighter.compute.binaries import Binaries, default_cache
from support.lamp import Lamp, temporary_lamp, wait_for

WORKERS = 8
BRANCHES = 3
STRIKE_EVERY = 4
ASLEEP_SECONDS = 60.0
API_SECONDS = 90.0
OBSERVE_SECONDS = 0.5
#: Until here nothing is killed, and from there on only what takes no process of ours with it: memory is compared.
QUIET, CALM = 0.1, 0.6
STRIKES: Sequence[Strike] = ("postmaster", "gateway", "relay", "platform", "postmaster", "catalog", "fall", "gateway")
CALM_STRIKES: Sequence[Strike] = ("postmaster", "postmaster", "relay")


@dataclass(frozen=True, slots=True)
class Cycle:
    """One endpoint is put to sleep, by itself or by request, and visited; `strike` falls `after` seconds later."""

    number: int
    endpoint: int
    sleep: Literal["timeout", "request"]
    visit: str
    strike: Strike | None
    after: float


def plan(seed: int, *, cycles: int, endpoints: int, visits: Sequence[str]) -> tuple[Cycle, ...]:
    """All cycles. Endpoints take turns, in another order each round. Pure."""
    chance = random.Random(seed)
    order: list[int] = []
    struck = 0
    warm: set[int] = set()
    found = []
    for number in range(cycles):
        order = order or chance.sample(range(endpoints), endpoints)
        endpoint = order.pop()
        strike: Strike | None = None
        if number >= cycles * QUIET and number % STRIKE_EVERY == 0:
            kinds = STRIKES if number < cycles * CALM else CALM_STRIKES
            strike, struck = kinds[struck % len(kinds)], struck + 1
        (visit,) = chance.choices(visits, [WEIGHTS.get(one, 8) for one in visits])
        # The connection that SQL over HTTP keeps would keep it awake for long.
        sleep: Literal["timeout", "request"] = "request" if endpoint in warm or chance.random() < 0.4 else "timeout"
        (warm.add if visit == "sql_over_http" else warm.discard)(endpoint)
        found.append(Cycle(number, endpoint, sleep, visit, strike, chance.uniform(0.0, 1.0)))
    return tuple(found)


@dataclass
class Soak:
    """A running platform with its places. `api` is patient with a control plane that is being killed."""

    lamp: Lamp
    record: Record
    seed: int
    watch: Watch
    places: list[Place] = field(default_factory=list)
    looks: list[soak_leaks.Look] = field(default_factory=list)
    leaks: list[str] = field(default_factory=list)

    # The platform

    def api(self, method: str, path: str, body: Any = None, **params: Any) -> Any:
        """The answer, when it is there: busy projects, and kills, are waited for."""
        begin = time.monotonic()
        while True:
            trouble, kinds = self._try(method, path, body, params)
            if trouble is None:
                return kinds
            if time.monotonic() > begin + API_SECONDS:
                raise TimeoutError(f"{method} {path}: {trouble}")
            threading.Event().wait(0.1)

    def _try(self, method: str, path: str, body: Any, params: dict[str, Any]) -> tuple[str | None, Any]:
        """What is in the way, if something is, and the answer."""
        begin = time.monotonic()
        try:
            reply = self.lamp.request(method, path, body, **params)
        except httpx2.TransportError as error:
            trouble = repr(error)
        else:
            if reply.is_success:
                return None, reply.json() if reply.content else None
            trouble = f"{reply.status_code} {reply.text}"
            if reply.status_code == 423:
                return trouble, None
        if not self.record.windows.over(begin, None) & {"platform", "catalog", "fall"}:
            self.record.violation("the API failed, though nothing was wrong", path=path, trouble=trouble)
        return trouble, None

    def settle(self, project: str) -> None:
        def ended() -> bool:
            found = self.api("GET", f"/projects/{project}/operations")["operations"]
            return all(one["status"] in ("finished", "failed", "cancelled", "skipped", "error") for one in found)

        wait_for(ended, seconds=API_SECONDS, what=f"the operations of {project}")

    def prepare(self, endpoints: int) -> None:
        """Some share a project, in which one operation at a time goes on."""
        while len(self.places) < endpoints:
            made = self.api("POST", "/projects", {"project": {"name": f"soak-{len(self.places)}"}})
            project = made["project"]["id"]
            self._add(project, made)
            for _ in range(min(BRANCHES - 1, endpoints - len(self.places))):
                self.settle(project)
                wanted = {"branch": {}, "endpoints": [{"type": "read_write"}]}
                self._add(project, self.api("POST", f"/projects/{project}/branches", wanted))

    def _add(self, project: str, made: Any) -> None:
        branch, endpoint = made["branch"]["id"], made["endpoints"][0]["id"]
        self.settle(project)
        wanted = {"branch_id": branch, "role_name": world.ROLE, "database_name": world.DATABASE}
        uri = self.api("GET", f"/projects/{project}/connection_uri", **wanted)["uri"]
        pooled = self.api("GET", f"/projects/{project}/connection_uri", **wanted, pooled="true")["uri"]
        by_domain = "--domain" in self.lamp.options
        uri, pooled = reached(uri, by_domain=by_domain), reached(pooled, by_domain=by_domain)
        place = Place(len(self.places), project, branch, endpoint, uri, pooled if pooled != uri else None)
        with contextlib.closing(connect(uri)) as connection:
            connection.execute("drop table if exists me, counter")
            connection.execute("create table me as select %s::text as id", (endpoint,))
            connection.execute("create table counter as select 0::bigint as n")
        self.places.append(place)

    # A cycle

    def lull(self, place: Place, how: Literal["timeout", "request"]) -> None:
        """Return when it sleeps."""
        if how == "request":
            self.api("POST", f"{place.path}/suspend")
        state: list[dict[str, Any]] = []

        def asleep() -> bool:
            state[:] = [self.api("GET", place.path)["endpoint"]]
            return state[0]["current_state"] == "idle" and not state[0].get("pending_state")

        try:
            wait_for(asleep, seconds=ASLEEP_SECONDS, every=0.1)
        except TimeoutError:
            self.record.violation("it does not fall asleep", endpoint=place.endpoint, how=how, state=state)
        place.slept = True

    def run(self, cycle: Cycle, visits: Visits, strikes: Strikes) -> None:
        if self.record.hopeless:
            return
        place = self.places[cycle.endpoint]
        chance = random.Random(f"{self.seed}-{cycle.number}")
        with place.turn:
            try:
                self.lull(place, cycle.sleep)
                self.record.event(
                    "cycle", number=cycle.number, endpoint=place.endpoint, visit=cycle.visit, strike=cycle.strike
                )
                with self._striking(cycle, place, strikes), contextlib.suppress(NotServed, Cut):
                    visits.pay(cycle.visit, place, chance)
                if cycle.visit == "stale_cancel":
                    self._still_asleep(place)
                self._served_again(place, visits, chance)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
                told = "".join(traceback.format_exception(error)[-6:])
                self.record.violation("a cycle failed", endpoint=place.endpoint, visit=cycle.visit, error=told)

    @contextlib.contextmanager
    def _striking(self, cycle: Cycle, place: Place, strikes: Strikes) -> Iterator[None]:
        if cycle.strike is None:
            yield
            return
        kind = cycle.strike
        failed: list[BaseException] = []

        def strike() -> None:
            threading.Event().wait(cycle.after)
            try:
                strikes(kind, place)
            except BaseException as error:  # noqa: BLE001 - told by the worker below
                failed.append(error)

        thread = threading.Thread(target=strike, name=f"strike-{kind}")
        thread.start()
        try:
            yield
        finally:
            thread.join()
        if failed:
            raise RuntimeError(f"after a kill of {kind}: {failed[0]!r}") from failed[0]

    def _still_asleep(self, place: Place) -> None:
        found = self.api("GET", place.path)["endpoint"]
        if found["current_state"] != "idle" or found.get("pending_state"):
            self.record.violation("a cancel request woke an endpoint", endpoint=place.endpoint)

    def _served_again(self, place: Place, visits: Visits, chance: random.Random) -> None:
        """Whatever happened, the next ones are served, at once or when what was killed is back."""
        until = time.monotonic() + API_SECONDS
        while True:
            try:
                visits.simple(place, chance)
            except (NotServed, Cut):
                if time.monotonic() > until or self.record.hopeless:
                    raise
                threading.Event().wait(0.1)
            else:
                return

    # Looks

    def look(self, when: str, *, base: soak_leaks.Look | None) -> soak_leaks.Look:
        """With all endpoints asleep."""
        for place in self.places:
            self.api("POST", f"{place.path}/suspend")
        for place in self.places:
            self.lull(place, "timeout")
        found, problems = soak_leaks.settled_look(self.lamp, when, base)
        self.looks.append(found)
        self.leaks += problems
        self.record.event("look", **found.told())
        return found


@contextlib.contextmanager
def observing(strikes: Strikes, watch: Watch) -> Iterator[None]:
    """Hanging sessions are ended, and processes noted, for the time of the block."""
    over = threading.Event()

    def observe() -> None:
        while not over.wait(OBSERVE_SECONDS):
            watch.look()
            strikes.observe()

    thread = threading.Thread(target=observe, name="observer")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def soak(
    lamp: Lamp,
    *,
    cycles: int,
    endpoints: int,
    seed: int,
    log: Path,
    workers: int = WORKERS,
    leave_out: Sequence[str] = (),
) -> dict[str, Any]:
    """Run it all on a platform that is not started, stop it, and tell how it went."""
    record = Record(log)
    watch = Watch(record)
    began, since = time.monotonic(), time.time()
    lamp.start()
    found = Soak(lamp, record, seed, watch)
    strikes = Strikes(lamp, record, found.places)
    psql = Binaries(default_cache()).ensure(17)
    with observing(strikes, watch), httpx2.Client(limits=httpx2.Limits(max_keepalive_connections=0)) as http:
        visits = Visits(record, watch, psql.program("psql"), psql.environment(), http)
        found.prepare(endpoints)
        names = [*WEIGHTS, *(["by_pooler"] if all(place.pooled for place in found.places) else [])]
        names = [name for name in names if name not in leave_out]
        planned = plan(seed, cycles=cycles, endpoints=endpoints, visits=names)
        base = found.look("at first", base=None)
        before = 0
        for share, when in (
            (QUIET, "after a tenth"),
            (CALM, "at the last kill of a process of ours"),
            (1.0, "at last"),
        ):
            until = int(cycles * share)
            with ThreadPoolExecutor(min(workers, endpoints)) as pool:
                for one in [pool.submit(found.run, one, visits, strikes) for one in planned[before:until]]:
                    one.result()
            before = until
            visits.forget_silent()
            found.look(when, base=base)
        found.leaks += soak_leaks.grown(found.looks[2], found.looks[3])
    status = lamp.stop()
    if status != 0:
        record.violation("lamp up did not end well", status=status)
    found.leaks += soak_leaks.remains(lamp, strikes, found.places, since=int(since))
    return summary(found, cycles=cycles, seconds=time.monotonic() - began)


def summary(found: Soak, *, cycles: int, seconds: float) -> dict[str, Any]:
    record = found.record
    return {
        "seed": found.seed,
        "cycles": cycles,
        "endpoints": len(found.places),
        "seconds": round(seconds, 1),
        "connections": {
            "attempts": record.attempts,
            "served": record.served,
            "errors_by_sqlstate": dict(record.errors),
            "broken_by_excuse": dict(record.excused),
        },
        "sessions_cut_by_excuse": dict(record.cuts),
        "kills": dict(record.kills),
        "seconds_until_back": {
            kind: {"n": len(times), "p50": sorted(times)[len(times) // 2], "max": max(times)}
            for kind, times in record.windows.seconds.items()
        },
        "visits": dict(record.visits),
        "wake_ms": percentiles(record.wakes),
        "looks": [look.told() for look in found.looks],
        "leaks": found.leaks,
        "violations": record.violations,
    }


@contextlib.contextmanager
def own_lamp(
    endpoints: int, *, suspend_after: int = 1, domain: str | None = None, redirect: bool = False
) -> Iterator[Lamp]:
    """A platform with enough ports, not started. With a domain all clients come by its one port."""
    options = ["--suspend-after", str(suspend_after), "--log-level", "info"]
    if domain is not None:
        options += ["--domain", domain, "--domain-port", str(_free_port())]
    if redirect:
        options += ["--redirect"]
    with temporary_lamp(start=False, options=tuple(options)) as lamp:
        if 2 * endpoints + 4 > lamp.ports[1] - lamp.ports[0]:
            # Above those that tests take, and below those of computes.
            lamp.ports = (29500 - 2 * endpoints, 29999)
        yield lamp


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def main() -> int:
    """0 if nothing happened that must not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cycles", type=int, default=200)
    parser.add_argument("--endpoints", type=int, default=10)
    parser.add_argument("--workers", type=int, default=WORKERS)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--leave-out", nargs="+", default=[], choices=[*WEIGHTS, "by_pooler"], metavar="VISIT")
    parser.add_argument("--suspend-after", type=int, default=1)
    parser.add_argument("--domain", metavar="NAME", help="connect by the one port of this domain")
    parser.add_argument("--redirect", action="store_true", help="have the kernel lead connections; needs root")
    parser.add_argument("--log", type=Path, help="every event, a line of JSON each; logs of the platform beside it")
    chosen = parser.parse_args()
    log = chosen.log or Path(tempfile.gettempdir()) / f"soak-{chosen.seed}.jsonl"
    log.unlink(missing_ok=True)
    sys.stderr.write(f"seed {chosen.seed}, events in {log}\n")
    ways = {"domain": chosen.domain, "redirect": chosen.redirect}
    with own_lamp(chosen.endpoints, suspend_after=chosen.suspend_after, **ways) as lamp:
        try:
            told = soak(
                lamp,
                cycles=chosen.cycles,
                endpoints=chosen.endpoints,
                seed=chosen.seed,
                log=log,
                workers=chosen.workers,
                leave_out=chosen.leave_out,
            )
        finally:
            keep_logs(lamp, log)
    sys.stdout.write(json.dumps(told, indent=1, default=str) + "\n")
    return 1 if told["violations"] or told["leaks"] else 0


def keep_logs(lamp: Lamp, log: Path) -> None:
    """Of the platform and its gateway, beside the events."""
    for name, path in (("gateway", lamp.data_dir / "logs" / "gateway.log"), ("platform", lamp.log)):
        with contextlib.suppress(OSError):
            shutil.copy(path, log.with_suffix(f".{name}.log"))


if __name__ == "__main__":
    sys.exit(main())
