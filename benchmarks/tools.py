"""The tools: (e) pacing, (f) the cost of a call, (g) what it costs to start, (h) a long list."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx2
from neon_api import NeonAPI

from benchmarks.harness import Report, Result, timed
from lamplighter import APIError, Neon
from lamplighter.client.pacing import Buckets, OwnStore, Pacer, Rate
from lamplighter.testing import example
from support.lamp import Lamp, temporary_lamp

#: Requests of (e), and the least seconds that 700 at once and 700 a minute after that allow for them.
PACED, LEAST = 1400, (1400 - 700) / (700 / 60)
LISTED = 1000
_PROJECT = json.dumps({"project": example("getProject")["project"]}).encode()


def pacing(report: Report) -> None:
    """GETs of two routes by 8 threads, as fast as the client lets them go, against limits that are enforced."""
    with (
        temporary_lamp(driver="overlay", options=("--rate-limits", "neon")) as lamp,
        Neon(api_key=lamp.key, base_url=lamp.url, retries=0) as neon,
        ThreadPoolExecutor(8) as pool,
    ):

        def ask(number: int) -> int:
            try:
                neon.users.organizations().page() if number % 2 else neon.api_keys.list().page()
            except APIError:
                return 1
            return 0

        start = time.perf_counter()
        refused = sum(pool.map(ask, range(PACED)))
        seconds = time.perf_counter() - start
    note = f"{refused} refused or failed; {seconds / LEAST:.4f} of the least ({LEAST:.0f} s)"
    report.add(Result("e pacing", f"{PACED} GETs, 8 threads", "", [seconds * 1000], note))


class _Project(BaseHTTPRequestHandler):
    """Answers every GET with one project, over connections that stay open."""

    protocol_version = "HTTP/1.1"
    # Else the kernel holds the second part of each answer back until the first is acknowledged: 40 ms.
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(_PROJECT)))
        self.end_headers()
        self.wfile.write(_PROJECT)

    def log_message(self, *_: object) -> None:
        return


def call_cost(report: Report, *, calls: int = 2000) -> None:
    """`neon.projects.get` beside the same GET by httpx2 and its `.json()`, one after the other in turns."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Project)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}/api/v2"
    ours: list[float] = []
    plain: list[float] = []
    endless = Rate(per_second=1e9, capacity=1e9)
    with (
        Neon(api_key="benchmark", base_url=url) as neon,
        httpx2.Client(headers={"authorization": "Bearer benchmark"}) as http,
    ):
        # The pacing takes part, but with limits that are never reached.
        neon._sender.pacer = Pacer(OwnStore(Buckets(account=endless, route=endless)))  # noqa: SLF001
        for number in range(calls + 100):
            mine = timed(lambda: neon.projects.get("calm-lake-12345678"))
            theirs = timed(lambda: http.get(f"{url}/projects/calm-lake-12345678").json())
            if number >= 100:
                ours.append(mine)
                plain.append(theirs)
    server.shutdown()
    server.server_close()
    direct = report.add(Result("f call", "httpx2 get().json()", "", plain))
    mine = Result("f call", "neon.projects.get", "", ours)
    mine.note = f"{mine.p50 - direct.p50:+.3f} ms a call"
    report.add(mine)


def starting(report: Report, *, rounds: int) -> None:
    """Importing, and the help of the command, each in a new process."""
    lamp = str(Path(sys.executable).with_name("lamp"))
    subjects = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "import lamplighter": [sys.executable, "-c", "import lamplighter"],
        "from lamplighter import Neon": [sys.executable, "-c", "from lamplighter import Neon"],
        "import neon_api": [sys.executable, "-c", "import neon_api"],
        "lamp --help": [lamp, "--help"],
    }
    neon = _official_cli()
    if neon:
        subjects["neon --help"] = [neon, "--help"]
    for subject, command in subjects.items():
        run = [timed(lambda command=command: _quietly(command)) for _ in range(rounds + 1)]
        report.add(Result("g start", subject, "", run[1:]))


def _official_cli() -> str | None:
    """The npm package `neon`, where it has been installed for the tests of clients, or on the PATH."""
    return os.environ.get("NEON_CLI") or shutil.which("neon")


def _quietly(command: list[str]) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "NO_UPDATE_NOTIFIER": "1"})


def long_list(lamp: Lamp, report: Report, *, rounds: int) -> None:
    """A thousand branches: by pages of a hundred, in one page, and by the official SDK (one request, one page)."""
    project_id = lamp.project(name="many")["project"]["id"]
    with Neon(api_key=lamp.key, base_url=lamp.url, pacing="off") as neon:
        for number in range(LISTED - 1):
            neon.branches.create(project_id, name=f"b{number}", endpoints=[], wait=True)

        def by_pages() -> None:
            assert sum(1 for _ in neon.branches.list(project_id, limit=100)) == LISTED

        def at_once() -> None:
            assert len(neon.branches.list(project_id, limit=10_000).page().items) == LISTED

        official = NeonAPI(lamp.key, base_url=lamp.url + "/")

        def by_official() -> None:
            official.branches(project_id, limit=10_000)

        for subject, work in (
            ("neon.branches.list, 10 pages", by_pages),
            ("neon.branches.list, 1 page", at_once),
            ("neon-api branches(), 1 page", by_official),
        ):
            report.add(Result("h list", subject, str(LISTED), [timed(work) for _ in range(rounds)]))
    lamp.call("DELETE", f"/projects/{project_id}")
