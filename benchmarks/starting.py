"""(b) A suspended endpoint to its first answer, (c) a new project to its first; and the same by pg_ctl and initdb."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

from benchmarks.harness import Report, Result, build, first_answer, timed
from lamplighter.compute.user import current_or_system_user, drop_prefix
from support.lamp import Lamp, uri_of


def start_suspended(lamp: Lamp, report: Report, *, driver: str, rounds: int) -> None:
    made = lamp.project(name="starts")
    project_id, endpoint_id, uri = made["project"]["id"], made["endpoints"][0]["id"], uri_of(made)
    place = f"/projects/{project_id}/endpoints/{endpoint_id}"

    def start() -> None:
        lamp.call("POST", f"{place}/start")
        first_answer(uri)

    times = []
    for number in range(rounds + 1):
        lamp.call("POST", f"{place}/suspend")
        lamp.settle(project_id)
        milliseconds = timed(start)
        lamp.settle(project_id)
        if number:
            times.append(milliseconds)
    report.add(Result("b start", driver, "40 MB", times))
    lamp.call("DELETE", f"/projects/{project_id}")


def new_project(lamp: Lamp, report: Report, *, driver: str, rounds: int) -> None:
    ids: list[str] = []

    def create() -> None:
        made = lamp.call("POST", "/projects", {"project": {"name": "new"}})
        ids.append(made["project"]["id"])
        first_answer(uri_of(made))

    times = []
    for number in range(rounds + 1):
        milliseconds = timed(create)
        lamp.settle(ids[-1])
        lamp.call("DELETE", f"/projects/{ids[-1]}")
        if number:
            times.append(milliseconds)
    report.add(Result("c project", driver, "40 MB", times))


class ByHand:
    """One cluster made with initdb and started with pg_ctl, as a script would: trust on a Unix socket, nothing set."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.data = place / "data"
        self.build = build()
        owner = current_or_system_user()
        os.chown(place, *owner)
        self.prefix = drop_prefix(owner)

    def run(self, program: str, *arguments: str) -> None:
        argv = [*self.prefix, str(self.build.program(program)), "-D", str(self.data), *arguments]
        env = {**os.environ, **self.build.environment()}
        subprocess.run(argv, env=env, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def start(self) -> None:
        options = f"-c listen_addresses= -c unix_socket_directories={self.place}"
        self.run("pg_ctl", "-w", "-o", options, "-l", str(self.place / "log"), "start")
        first_answer(f"postgresql://postgres@/postgres?host={self.place}")

    def stop(self) -> None:
        self.run("pg_ctl", "-w", "stop")

    def create(self) -> None:
        self.run("initdb", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8")
        self.start()


def by_hand(report: Report, *, rounds: int) -> None:
    starts, creations = [], []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as name:
            cluster = ByHand(Path(name))
            creations.append(timed(cluster.create))
            cluster.stop()
            starts.append(timed(cluster.start))
            cluster.stop()
    report.add(Result("b start", "pg_ctl start", "40 MB", starts))
    report.add(Result("c project", "initdb, pg_ctl start", "40 MB", creations))
