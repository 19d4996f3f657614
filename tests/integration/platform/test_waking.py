"""Endpoints of a real platform that sleep, wake when somebody connects, and outlive what may happen meanwhile."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families

from lamplighter.compute.pooler_errors import PoolerMissing
from lamplighter.compute.pooler_program import find_pooler
from lamplighter.platform.settings import run_dir_of
from support.lamp import Lamp, sql, temporary_lamp, uri_of, wait_for


@pytest.fixture(scope="module")
def lamp() -> Iterator[Lamp]:
    """Its endpoints fall asleep after a second without clients, unless they say otherwise."""
    with temporary_lamp(driver="copy", options=("--suspend-after", "1", "--active-endpoints", "12")) as lamp:
        yield lamp


class Place:
    """One project with its endpoint."""

    def __init__(self, lamp: Lamp, **settings: Any) -> None:
        made = lamp.project(**settings)
        self.lamp = lamp
        self.id = made["project"]["id"]
        self.branch = made["branch"]["id"]
        self.endpoint = made["endpoints"][0]["id"]
        self.uri = uri_of(made)
        self.path = f"/projects/{self.id}/endpoints/{self.endpoint}"

    def now(self) -> dict[str, Any]:
        found: dict[str, Any] = self.lamp.call("GET", self.path)["endpoint"]
        return found

    def state(self) -> str:
        return str(self.now()["current_state"])

    def suspend(self) -> None:
        self.lamp.call("POST", f"{self.path}/suspend")
        self.lamp.settle(self.id)

    def change(self, **fields: Any) -> None:
        self.lamp.call("PATCH", self.path, {"endpoint": fields})
        self.lamp.settle(self.id)

    def starts(self) -> int:
        """How often its compute has been started, as its operations tell."""
        found = self.lamp.call("GET", f"/projects/{self.id}/operations", limit=1000)["operations"]
        return sum(one["action"] == "start_compute" for one in found)

    def postmaster(self) -> int:
        """The process of the compute."""
        found = [pid for pid in self.lamp.postmasters() if self.branch in Path(f"/proc/{pid}/cmdline").read_text()]
        assert len(found) == 1
        return found[0]


@pytest.fixture
def place(lamp: Lamp) -> Iterator[Place]:
    """An endpoint that stays awake until it is told to sleep."""
    made = Place(lamp, default_endpoint_settings={"suspend_timeout_seconds": -1})
    yield made
    wait_for(lambda: lamp.request("DELETE", f"/projects/{made.id}").status_code in (200, 404), what="the deletion")


def test_a_connection_wakes_a_sleeping_endpoint_and_is_served(place):
    before = place.now()
    place.suspend()
    asleep = place.now()
    assert asleep["current_state"] == "idle"
    assert asleep["suspended_at"] >= before["started_at"]
    assert sql(place.uri, "select 6 * 7") == [(42,)]
    place.lamp.settle(place.id)
    awake = place.now()
    assert awake["current_state"] == "active"
    assert awake["started_at"] >= asleep["suspended_at"]
    assert "suspended_at" not in awake
    assert place.starts() == 2


def test_a_hundred_connections_at_once_are_one_start(place):
    place.suspend()
    before = place.starts()
    with ThreadPoolExecutor(100) as pool:
        answers = list(pool.map(lambda number: sql(place.uri, "select %s::int", number), range(100)))
    assert answers == [[(number,)] for number in range(100)]
    place.lamp.settle(place.id)
    assert place.starts() == before + 1


def test_an_endpoint_without_clients_falls_asleep_and_one_with_a_client_does_not(lamp):
    place = Place(lamp)
    with psycopg.connect(place.uri, autocommit=True) as connection:
        other = Place(lamp)
        sql(other.uri, "select 1")
        wait_for(lambda: other.state() == "idle", what="the other's suspension")
        # Both were idle for as long; this one's connection alone has kept it.
        assert place.state() == "active"
        assert connection.execute("select 1").fetchone() == (1,)
        last_active = place.now()["last_active"]
    wait_for(lambda: place.state() == "idle", what="the suspension")
    slept = place.now()
    assert slept["last_active"] >= last_active
    assert slept["suspended_at"] >= slept["last_active"]
    assert sql(place.uri, "select 1") == [(1,)]
    wait_for(lambda: place.state() == "idle", what="the next suspension")
    for one in (place, other):
        wait_for(lambda one=one: lamp.request("DELETE", f"/projects/{one.id}").status_code in (200, 404))


def test_a_query_in_flight_is_never_cut_by_the_idle_timeout(lamp):
    place = Place(lamp)
    assert sql(place.uri, "select pg_sleep(3)::text") == [("",)]
    wait_for(lambda: place.state() == "idle", what="the suspension")
    wait_for(lambda: lamp.request("DELETE", f"/projects/{place.id}").status_code in (200, 404))


def test_a_disabled_endpoint_says_so(place):
    place.change(disabled=True)
    for _ in range(2):
        with pytest.raises(psycopg.OperationalError, match="endpoint has been disabled"):
            psycopg.connect(place.uri)
    assert place.state() == "idle"
    place.change(disabled=False)
    assert sql(place.uri, "select 1") == [(1,)]


def test_allowed_addresses_let_in_and_keep_out(place):
    def allow(*addresses: str, protected_only: bool = False) -> None:
        wish = {"ips": list(addresses), "protected_branches_only": protected_only}
        place.lamp.call("PATCH", f"/projects/{place.id}", {"project": {"settings": {"allowed_ips": wish}}})

    allow("10.1.2.3")
    with pytest.raises(psycopg.OperationalError, match=r"127\.0\.0\.1 is not allowed to connect"):
        psycopg.connect(place.uri)
    allow("10.1.2.3", protected_only=True)
    assert sql(place.uri, "select 1") == [(1,)]
    branch = f"/projects/{place.id}/branches/{place.branch}"
    place.lamp.call("PATCH", branch, {"branch": {"protected": True}})
    with pytest.raises(psycopg.OperationalError, match="not allowed to connect"):
        psycopg.connect(place.uri)
    allow("10.1.2.3", "127.0.0.0/8", protected_only=True)
    assert sql(place.uri, "select 1") == [(1,)]
    place.lamp.call("PATCH", branch, {"branch": {"protected": False}})


def test_a_start_that_fails_tells_who_waits_why(place):
    place.suspend()
    volume = place.lamp.data_dir / "storage" / "volumes" / place.branch
    mark = min(volume.rglob("PG_VERSION"), key=lambda path: len(path.parts))
    content = mark.read_bytes()
    mark.write_bytes(b"9.0\n")
    with pytest.raises(psycopg.OperationalError, match="could not be started") as caught:
        psycopg.connect(place.uri)
    assert "DETAIL" in str(caught.value)
    mark.write_bytes(content)
    place.lamp.settle(place.id)
    assert sql(place.uri, "select 1") == [(1,)]


def test_a_killed_postmaster_is_back_for_the_next_connection(place):
    os.kill(place.postmaster(), signal.SIGKILL)
    assert sql(place.uri, "select 1") == [(1,)]


def test_a_killed_gateway_is_back_and_cuts_nobody_else_off(place):
    with psycopg.connect(place.uri, autocommit=True) as connection:
        (gateway,) = place.lamp.gateways()
        os.kill(gateway, signal.SIGKILL)
        wait_for(lambda: place.lamp.gateways() not in ([], [gateway]), what="another gateway")
        assert wait_for(lambda: _try(place.uri), what="a connection by it")
        # The relay serves those who were connected on.
        assert connection.execute("select 1").fetchone() == (1,)


def _try(uri: str) -> bool:
    try:
        return sql(uri, "select 1") == [(1,)]
    except psycopg.OperationalError:
        return False


def test_who_is_connected_outlives_the_control_plane(lamp, place):
    with psycopg.connect(place.uri, autocommit=True) as connection:
        gateways = lamp.gateways()
        lamp.kill()
        assert connection.execute("select 1").fetchone() == (1,)
        # Awake endpoints are served on without a control plane.
        assert sql(place.uri, "select 2") == [(2,)]
        lamp.start()
        assert lamp.gateways() == gateways
        assert connection.execute("select 3").fetchone() == (3,)
    place.suspend()
    assert sql(place.uri, "select 4") == [(4,)]


def test_no_more_endpoints_than_allowed_are_active(lamp):
    asleep = Place(lamp, default_endpoint_settings={"suspend_timeout_seconds": -1})
    asleep.suspend()
    path = f"/projects/{asleep.id}/branches"
    wish = {"endpoints": [{"type": "read_write", "suspend_timeout_seconds": -1}]}
    made = []
    refused = None
    while refused is None:
        reply = lamp.request("POST", path, wish)
        lamp.settle(asleep.id)
        if reply.is_success:
            made.append(reply.json())
            assert len(made) <= 12
        else:
            refused = reply
    assert refused.status_code == 422
    assert refused.json()["code"] == "ACTIVE_ENDPOINTS_LIMIT_EXCEEDED"
    with pytest.raises(psycopg.OperationalError, match="could not be started") as caught:
        psycopg.connect(asleep.uri)
    assert "endpoints are active, and no more may be" in str(caught.value)
    one = made[0]["endpoints"][0]["id"]
    lamp.call("POST", f"/projects/{asleep.id}/endpoints/{one}/suspend")
    lamp.settle(asleep.id)
    assert sql(asleep.uri, "select 1") == [(1,)]
    wait_for(lambda: lamp.request("DELETE", f"/projects/{asleep.id}").status_code in (200, 404))


def test_a_connection_waits_for_what_its_project_is_doing(place):
    place.suspend()
    place.lamp.call("POST", f"/projects/{place.id}/branches", {"endpoints": [{"type": "read_write"}]})
    assert sql(place.uri, "select 1") == [(1,)]


def test_nobody_waits_at_the_address_of_an_endpoint_that_is_gone(lamp):
    place = Place(lamp)
    address = urlsplit(place.uri)
    with psycopg.connect(place.uri, autocommit=True) as connection:
        lamp.settle(place.id)
        lamp.call("DELETE", f"/projects/{place.id}")

        def refused() -> bool:
            try:
                socket.create_connection((address.hostname or "", address.port or 0), 5).close()
            except ConnectionRefusedError:
                return True
            return False

        wait_for(refused, what="a closed port")
        with pytest.raises(psycopg.OperationalError):
            connection.execute("select 1")


def test_use_is_counted(lamp):
    place = Place(lamp, default_endpoint_settings={"suspend_timeout_seconds": -1})
    sql(place.uri, "select repeat('x', 1000000)")

    def used() -> Any:
        project = lamp.call("GET", f"/projects/{place.id}")["project"]
        branch = lamp.call("GET", f"/projects/{place.id}/branches/{place.branch}")["branch"]
        enough = project["data_transfer_bytes"] > 1_000_000 and project["active_time_seconds"] > 2
        return (project, branch) if enough else None

    project, branch = wait_for(used, what="the figures", seconds=60)
    assert project["data_transfer_bytes"] < 1_200_000
    assert branch["data_transfer_bytes"] == project["data_transfer_bytes"]
    assert branch["active_time_seconds"] >= 2
    wait_for(lambda: lamp.request("DELETE", f"/projects/{place.id}").status_code in (200, 404))


def counted(lamp: Lamp, name: str) -> dict[str, float]:
    """A counter of the platform, by its one label."""
    text = httpx2.get(lamp.url.removesuffix("/api/v2") + "/metrics").text
    (family,) = (one for one in text_string_to_metric_families(text) if one.name == name)
    return {next(iter(one.labels.values())): one.value for one in family.samples if one.name.endswith("_total")}


def test_suspends_are_counted_by_why_they_came(lamp):
    """Each once, when the compute is down: by itself, because somebody asked, because the postmaster ended."""
    place = Place(lamp)
    wait_for(lambda: place.state() == "idle", what="the suspension")
    before = counted(lamp, "lamp_suspends")

    def more() -> dict[str, float]:
        return {reason: count - before[reason] for reason, count in counted(lamp, "lamp_suspends").items()}

    sql(place.uri, "select 1")
    wait_for(lambda: more() == {"api": 0, "crash": 0, "idle": 1}, what="one for idleness")
    place.change(suspend_timeout_seconds=-1)
    sql(place.uri, "select 1")
    lamp.settle(place.id)
    place.suspend()
    wait_for(lambda: more() == {"api": 1, "crash": 0, "idle": 1}, what="one that was asked for")
    sql(place.uri, "select 1")
    lamp.settle(place.id)
    os.kill(place.postmaster(), signal.SIGKILL)
    wait_for(lambda: more() == {"api": 1, "crash": 1, "idle": 1}, what="one for the crash")
    sql(place.uri, "select 1")
    lamp.settle(place.id)
    lamp.call("DELETE", place.path)
    wait_for(lambda: more() == {"api": 2, "crash": 1, "idle": 1}, what="one for the deletion")
    wait_for(lambda: lamp.request("DELETE", f"/projects/{place.id}").status_code in (200, 404))


def pooled(place: Place) -> str:
    wanted = {"branch_id": place.branch, "role_name": "neondb_owner", "database_name": "neondb", "pooled": "true"}
    return str(place.lamp.call("GET", f"/projects/{place.id}/connection_uri", **wanted)["uri"])


@pytest.fixture
def pgbouncer() -> str:
    """Debian's; the platform goes without where there is none."""
    try:
        return str(find_pooler().path)
    except PoolerMissing:
        pytest.fail("these tests need PgBouncer: apt install pgbouncer")


def test_a_start_of_the_pooler_is_no_wake(place, pgbouncer):
    before = counted(place.lamp, "lamp_wakes")
    assert sql(pooled(place), "select 1") == [(1,)]
    assert counted(place.lamp, "lamp_wakes") == before
    place.suspend()
    # Both are started, one after the other.
    assert sql(pooled(place), "select 1") == [(1,)]
    place.lamp.settle(place.id)
    assert counted(place.lamp, "lamp_wakes") == before | {"ok": before["ok"] + 1}


def test_a_herd_at_the_pooled_address_starts_one_pooler(place, pgbouncer):
    """Whoever comes while it starts does not have it started over, nor does news of the endpoint for the gateway."""
    uri = pooled(place)
    for times in (1, 2, 3):
        place.suspend()
        with ThreadPoolExecutor(16) as pool:
            served = pool.map(lambda _: sql(uri, "select 1"), range(32))
            for _ in range(10):
                place.lamp.call("PATCH", place.path, {"endpoint": {"settings": {}}})
            assert list(served) == [[(1,)]] * 32
        log = (place.lamp.data_dir / "logs" / f"{place.endpoint}.pooler.log").read_text()
        assert log.count("process up") == times, log


def test_a_pooler_that_does_not_start_is_not_taken_for_the_compute(pgbouncer, tmp_path):
    """Its clients are told what failed and where to look; those of the compute are served."""
    program = tmp_path / "pgbouncer"
    program.write_text(f'#!/bin/sh\n[ "$1" = --version ] && exec {pgbouncer} --version\necho "no luck" >&2\nexit 1\n')
    for path, mode in ((program, 0o755), *((path, 0o711) for path in list(tmp_path.parents)[:2]), (tmp_path, 0o711)):
        path.chmod(mode)
    with temporary_lamp(driver="copy", start=False) as lamp:
        lamp.start(env={"PATH": f"{tmp_path}:{os.environ['PATH']}"})
        place = Place(lamp)
        before = counted(lamp, "lamp_wakes")
        with pytest.raises(psycopg.OperationalError, match="the pooler could not be started") as caught:
            psycopg.connect(pooled(place))
        assert "DETAIL" in str(caught.value)
        assert f"{place.endpoint}.pooler.log" in str(caught.value)
        assert sql(place.uri, "select 1") == [(1,)]
        assert counted(lamp, "lamp_wakes") == before


def test_a_stop_leaves_nothing_and_does_not_wait_for_clients():
    """Those who are connected are told by their compute."""
    with temporary_lamp() as lamp:
        assert len(lamp.gateways()) == 1
        assert run_dir_of(lamp.data_dir).exists()
        with psycopg.connect(lamp.connection_uri, autocommit=True) as connection:
            assert lamp.stop() == 0
            with pytest.raises(psycopg.OperationalError, match="terminating connection"):
                connection.execute("select 1")
        assert lamp.gateways() == []
        assert lamp.postmasters() == []
        assert not run_dir_of(lamp.data_dir).exists()


@pytest.fixture
def outside() -> Iterator[str]:
    """An address of this host that is not its loopback's: who calls it comes from it."""
    address = "192.0.2.77"
    subprocess.run(["ip", "address", "add", f"{address}/32", "dev", "lo"], check=True)
    try:
        yield address
    finally:
        subprocess.run(["ip", "address", "del", f"{address}/32", "dev", "lo"], check=True)


@pytest.mark.root
def test_nobody_comes_from_another_host_in_the_open(outside):
    """By TLS only; over HTTP too, where the password goes along."""
    with temporary_lamp(options=("--listen", outside)) as lamp:
        assert urlsplit(lamp.connection_uri).hostname == outside
        assert sql(lamp.connection_uri, "select 1") == [(1,)]
        bare = lamp.connection_uri.partition("?")[0]
        for mode in ("sslmode=disable", "sslmode=disable&gssencmode=disable"):
            with pytest.raises(psycopg.OperationalError, match="connection is insecure"):
                psycopg.connect(f"{bare}?{mode}")
        port = urlsplit(lamp.connection_uri).port
        reply = httpx2.post(
            f"http://{outside}:{port}/sql",
            json={"query": "select 1"},
            headers={"neon-connection-string": lamp.connection_uri},
        )
        assert reply.status_code == 403
        assert "use https" in reply.text
        # Without it a browser shows nothing of the sentence.
        assert reply.headers["access-control-allow-origin"] == "*"
