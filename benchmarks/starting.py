"""(b) A suspended endpoint to its first answer, (c) a new project to its first answer, and the same by pg_ctl and initdb."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

from benchmarks.harness import Lamp, Report, Result, build, current_or_system_user, drop_prefix, first_answer, timed, uri_of


def start_suspended(lamp: Lamp, report: Report, *, driver: str, rounds: int) -> None:
    made = lamp.project(name="starts")
    project_id, endpoint_id, uri = made["project"]["id"], made["endpoints"][0]["id"], uri_of(made)
    place = f"/projects/{project_id}/endpoints/{endpoint_id}"
    times = []
    for number in range(rounds + 1):
        lamp.call("POST", f"{place}/suspend")
        lamp.settle(project_id)

        def work() -> None:
            lamp.call("POST", f"{place}/start")
            first_answer(uri)

        milliseconds = timed(work)
        lamp.settle(project_id)
        if number:
            times.append(milliseconds)
    report.add(Result("b start", driver, "40 MB", times))
    lamp.call("DELETE", f"/projects/{project_id}")


def new_project(lamp: Lamp, report: Report, *, driver: str, rounds: int) -> None:
    times = []
    for number in range(rounds + 1):
        ids: list[str] = []

        def work() -> None:
            made = lamp.call("POST", "/projects", {"project": {"name": f"new {number}"}})
            ids.append(made["project"]["id"])
            first_answer(uri_of(made))

        milliseconds = timed(work)
        lamp.settle(ids[0])
        lamp.call("DELETE", f"/projects/{ids[0]}")
        if number:
            times.append(milliseconds)
    report.add(Result("c project", driver, "40 MB", times))


def by_hand(report: Report, *, rounds: int) -> None:
    """initdb and pg_ctl, as a script would use them: trust on a Unix socket, nothing else set."""
    found, owner = build(), current_or_system_user()
    env = {**os.environ, **found.environment()}
    prefix = drop_prefix(owner) if os.geteuid() == 0 else ()

    def run(program: str, *arguments: str) -> None:
        subprocess.run([*prefix, str(found.program(program)), *arguments], env=env, check=True, capture_output=True)

    starts, inits = [], []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as name:
            place = Path(name)
            os.chown(place, *owner)
            data = place / "data"
            options = f"-c listen_addresses= -c unix_socket_directories={place}"
            uri = f"postgresql://postgres@/postgres?host={place}"

            def start() -> None:
                run("pg_ctl", "-w", "-D", str(data), "-o", options, "-l", str(place / "log"), "start")
                first_answer(uri)

            def init() -> None:
                run("initdb", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "-D", str(data))
                start()

            inits.append(timed(init))
            run("pg_ctl", "-w", "-D", str(data), "stop")
            starts.append(timed(start))
            run("pg_ctl", "-w", "-D", str(data), "stop")
    report.add(Result("b start", "pg_ctl start", "40 MB", starts))
    report.add(Result("c project", "initdb, pg_ctl start", "40 MB", inits))
