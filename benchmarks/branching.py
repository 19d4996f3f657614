"""(a) From the request to the first `SELECT 1` on a new branch, per driver and size, beside what copies without us."""

from __future__ import annotations

import psycopg

from benchmarks.harness import Report, Result, first_answer, load, timed, tool
from support.lamp import Lamp, uri_of


def branch_once(lamp: Lamp, project_id: str, number: int) -> tuple[float, str]:
    """Milliseconds to the first answer, and the branch's id."""
    made: dict[str, str] = {}

    def work() -> None:
        body = {"branch": {"name": f"b{number}"}, "endpoints": [{"type": "read_write"}]}
        reply = lamp.call("POST", f"/projects/{project_id}/branches", body)
        made["id"] = reply["branch"]["id"]
        first_answer(uri_of(reply))

    return timed(work), made["id"]


def measure(lamp: Lamp, project_id: str, *, rounds: int, asleep: str | None = None) -> list[float]:
    """Branches of the default branch; `asleep` is its endpoint's id when it is to be suspended before each round."""
    times = []
    for number in range(rounds + 1):
        if asleep:
            lamp.call("POST", f"/projects/{project_id}/endpoints/{asleep}/suspend")
            lamp.settle(project_id)
        milliseconds, branch_id = branch_once(lamp, project_id, number)
        lamp.settle(project_id)
        lamp.call("DELETE", f"/projects/{project_id}/branches/{branch_id}")
        lamp.settle(project_id)
        if number:  # the first warms the page cache
            times.append(milliseconds)
    return times


def instead(uri: str, report: Report, *, size: str) -> None:
    """The same data by `CREATE DATABASE ... TEMPLATE` (nobody may be connected) and by `pg_dump | pg_restore`."""
    base, _, options = uri.rpartition("?")
    other = f"{base.rpartition('/')[0]}/other?{options}"
    with psycopg.connect(f"{base.rpartition('/')[0]}/postgres?{options}", autocommit=True) as conn:

        def template() -> None:
            conn.execute("create database other template neondb")
            first_answer(other)

        report.add(Result("a branch", "CREATE DATABASE ... TEMPLATE", size, [timed(template)]))
        conn.execute("drop database other")

        def dump_and_restore() -> None:
            conn.execute("create database other")
            dump = tool("pg_dump", "-Fc", "-Z0", uri).stdout
            tool("pg_restore", "--no-owner", "-d", other, input=dump)
            first_answer(other)

        report.add(Result("a branch", "pg_dump | pg_restore", size, [timed(dump_and_restore)]))
        conn.execute("drop database other")


def run(lamp: Lamp, report: Report, *, driver: str, sizes: list[str], rounds: int, compare: bool) -> None:
    for size in sizes:
        made = lamp.project(name=f"bench {size}")
        project_id, endpoint_id, uri = made["project"]["id"], made["endpoints"][0]["id"], uri_of(made)
        load(uri, size)
        if compare:
            instead(uri, report, size=size)
        if driver == "overlay":
            # What was written since the last suspend is copied for a branch of a running parent: suspend it once.
            times = measure(lamp, project_id, rounds=rounds, asleep=endpoint_id)
            report.add(Result("a branch", f"{driver}, parent asleep", size, times))
            lamp.call("POST", f"/projects/{project_id}/endpoints/{endpoint_id}/start")
            lamp.settle(project_id)
        few = min(rounds, 3) if driver == "copy" and size == "8 GiB" else rounds
        times = measure(lamp, project_id, rounds=few)
        report.add(Result("a branch", f"{driver}, parent running", size, times))
        lamp.call("DELETE", f"/projects/{project_id}")
