"""`lamp up --redirect`: the gateway wakes, the kernel leads, and each takes over from the other when something ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families

from lamplighter.platform.redirect import find_program
from lamplighter.platform.redirect_plan import Counted, parse_counters, table_name
from support.lamp import Lamp, sql, temporary_lamp, uri_of, wait_for

pytestmark = pytest.mark.root

NEVER = {"suspend_timeout_seconds": -1}


def nft(*arguments: str) -> Any:
    program = find_program("nft") or "nft"
    return json.loads(subprocess.run([program, "-j", *arguments], check=True, capture_output=True, text=True).stdout)


def has_table(lamp: Lamp) -> bool:
    tables = [entry["table"]["name"] for entry in nft("list", "tables")["nftables"] if "table" in entry]
    return table_name(lamp.data_dir) in tables


def is_led(connection: psycopg.Connection) -> bool:
    """Whether Postgres sees the client's own port: that of the relay is another."""
    with socket.socket(fileno=os.dup(connection.fileno())) as mine:
        row = connection.execute("select inet_client_port()").fetchone()
        return row == (mine.getsockname()[1],)


class Place:
    """One project with its endpoint, awake at first."""

    def __init__(self, lamp: Lamp, **settings: Any) -> None:
        made = lamp.project(default_endpoint_settings=settings)
        self.lamp = lamp
        self.id = made["project"]["id"]
        self.branch = made["branch"]["id"]
        self.endpoint = made["endpoints"][0]["id"]
        self.uri = uri_of(made)
        self.port = urlsplit(self.uri).port or 0
        self.path = f"/projects/{self.id}/endpoints/{self.endpoint}"

    def connect(self) -> psycopg.Connection:
        return psycopg.connect(self.uri, autocommit=True, connect_timeout=30)

    def suspend(self) -> None:
        self.lamp.call("POST", f"{self.path}/suspend")
        self.lamp.settle(self.id)

    def state(self) -> str:
        return str(self.lamp.call("GET", self.path)["endpoint"]["current_state"])

    def allow(self, *addresses: str) -> None:
        wish = {"ips": list(addresses), "protected_branches_only": False}
        self.lamp.call("PATCH", f"/projects/{self.id}", {"project": {"settings": {"allowed_ips": wish}}})

    def postmaster(self) -> int:
        found = [pid for pid in self.lamp.postmasters() if self.branch in Path(f"/proc/{pid}/cmdline").read_text()]
        assert len(found) == 1
        return found[0]

    def has_rule(self) -> bool:
        """Whether the kernel leads everybody who connects to the endpoint's port."""
        (found,) = (one["map"] for one in nft("list", "map", *self._table(), "everybody")["nftables"] if "map" in one)
        return self.port in [public for public, _ in found.get("elem", ())]

    def wait_for_rule(self) -> None:
        """It comes a little after those who waited for the start."""
        wait_for(self.has_rule, what="the rule")

    def counted(self) -> Counted:
        """What the kernel has led since the table was made."""
        return parse_counters(nft("list", "table", *self._table()))[self.port]

    def _table(self) -> tuple[str, str]:
        return "inet", table_name(self.lamp.data_dir)

    def shown(self) -> tuple[float, float]:
        """Open connections, as /metrics and as `lamp endpoints top` have them."""
        text = httpx2.get(self.lamp.url.removesuffix("/api/v2") + "/metrics").text
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        gauge = {one.labels["endpoint"]: one.value for one in samples if one.name == "lamp_gateway_connections"}
        headers = {"authorization": f"Bearer {self.lamp.key}"}
        rows = httpx2.get(self.lamp.url.removesuffix("/api/v2") + "/lamplighter/v1/endpoints/top", headers=headers)
        (row,) = (one for one in rows.json()["endpoints"] if one["id"] == self.endpoint)
        return gauge.get(self.endpoint, 0), row["connections"]


@pytest.fixture(scope="module")
def lamp() -> Iterator[Lamp]:
    """Its endpoints fall asleep after a second without clients, unless they say otherwise."""
    with temporary_lamp(driver="copy", options=("--redirect", "--suspend-after", "1")) as lamp:
        yield lamp


@pytest.fixture
def place(lamp: Lamp) -> Iterator[Place]:
    """An endpoint that stays awake until it is told to sleep."""
    made = Place(lamp, **NEVER)
    yield made
    wait_for(lambda: lamp.request("DELETE", f"/projects/{made.id}").status_code in (200, 404), what="the deletion")


def test_who_wakes_an_endpoint_goes_by_the_relay_and_the_next_one_is_led(place: Place) -> None:
    """Both are counted as open; the kernel counts its own."""
    place.suspend()
    assert not place.has_rule()
    with place.connect() as waker:
        assert not is_led(waker)
        place.wait_for_rule()
        before = place.counted()
        with place.connect() as led:
            assert is_led(led)
            assert led.execute("select repeat('x', 100000)").fetchone() == ("x" * 100_000,)
            after = place.counted()
            assert after.accepted == before.accepted + 1
            assert after.bytes_out >= before.bytes_out + 100_000
            wait_for(lambda: place.shown() == (2, 2), what="both of them in the figures")
        assert not is_led(waker)
    wait_for(lambda: place.shown() == (0, 0), what="none of them in the figures")


def test_a_suspension_takes_the_rule_away_and_the_next_connection_wakes_again(place: Place) -> None:
    place.wait_for_rule()
    with place.connect() as led:
        assert is_led(led)
        place.suspend()
        with pytest.raises(psycopg.OperationalError):
            led.execute("select 1")
    assert place.state() == "idle"
    assert not place.has_rule()
    assert sql(place.uri, "select 6 * 7") == [(42,)]
    place.wait_for_rule()
    with place.connect() as led:
        assert is_led(led)


def test_a_client_that_is_led_keeps_its_endpoint_awake(lamp: Lamp) -> None:
    place, other = Place(lamp), Place(lamp)
    sql(place.uri, "select 1")
    place.wait_for_rule()
    with place.connect() as led:
        assert is_led(led)
        sql(other.uri, "select 1")
        wait_for(lambda: other.state() == "idle", what="the other's suspension")
        assert place.state() == "active"
        assert led.execute("select 1").fetchone() == (1,)
    wait_for(lambda: place.state() == "idle", what="the suspension")
    for one in (place, other):
        wait_for(lambda one=one: lamp.request("DELETE", f"/projects/{one.id}").status_code in (200, 404))


def test_allowed_addresses_are_led_and_others_are_told(place: Place) -> None:
    """From the moment that the change is answered; who is connected stays."""
    place.wait_for_rule()
    with place.connect() as before:
        place.allow("127.0.0.2-127.0.0.255", "10.0.0.0/8")
        with pytest.raises(psycopg.OperationalError, match=r"127\.0\.0\.1 is not allowed to connect"):
            place.connect()
        place.allow("127.0.0.0-127.0.0.9", "::/0")
        with place.connect() as led:
            assert is_led(led)
        assert is_led(before)
    place.allow()
    place.wait_for_rule()


def test_who_is_led_outlives_the_control_plane(lamp: Lamp, place: Place) -> None:
    """And without one, and by the next one, others are led as well."""
    place.wait_for_rule()
    with place.connect() as led:
        lamp.kill()
        assert is_led(led)
        with place.connect() as meanwhile:
            assert is_led(meanwhile)
        lamp.start()
        assert is_led(led)
        place.wait_for_rule()
        with place.connect() as after:
            assert is_led(after)
            wait_for(lambda: place.shown() == (2, 2), what="both of them in the figures")
    place.suspend()
    assert sql(place.uri, "select 1") == [(1,)]


def test_a_killed_postmaster_is_back_for_the_next_client(place: Place) -> None:
    """Who comes before the rule is gone is refused by the kernel, and tries again."""
    place.wait_for_rule()
    os.kill(place.postmaster(), signal.SIGKILL)

    def served() -> bool:
        try:
            return sql(place.uri, "select 1") == [(1,)]
        except psycopg.OperationalError:
            return False

    wait_for(served, what="a connection")
    place.wait_for_rule()
    with place.connect() as led:
        assert is_led(led)


def test_a_stop_leaves_no_table_and_neither_does_lamp_down_after_a_crash(lamp: Lamp) -> None:
    assert sql(lamp.connection_uri, "select 1") == [(1,)]
    assert has_table(lamp)
    assert lamp.stop() == 0
    assert not has_table(lamp)
    lamp.start()
    assert sql(lamp.connection_uri, "select 1") == [(1,)]
    lamp.kill()
    assert has_table(lamp)
    command = [sys.executable, "-m", "lamplighter", "down", "--data-dir", str(lamp.data_dir)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    assert not has_table(lamp)
    assert lamp.postmasters() == []
    lamp.start()
