"""A short soak; `LAMP_SOAK_CYCLES=2000 LAMP_SOAK_ENDPOINTS=50` make it the long one."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from faults.soak import CALM, CALM_STRIKES, QUIET, STRIKES, keep_logs, own_lamp, plan, soak
from faults.soak_client import Place, reached
from faults.soak_record import Record
from faults.soak_visits import startup

CYCLES = int(os.environ.get("LAMP_SOAK_CYCLES", "60"))
ENDPOINTS = int(os.environ.get("LAMP_SOAK_ENDPOINTS", "6"))
SEED = int(os.environ.get("LAMP_SOAK_SEED", "5"))


@pytest.mark.timeout(300 + 5 * CYCLES)
def test_sleep_and_wake_while_everything_is_killed_now_and_then(tmp_path: Path) -> None:
    """Every connection is served or gets an error of Postgres, no commit is lost, and nothing is left in the end."""
    log = tmp_path / "soak.jsonl"
    with own_lamp(ENDPOINTS) as lamp:
        try:
            told = soak(lamp, cycles=CYCLES, endpoints=ENDPOINTS, seed=SEED, log=log)
        finally:
            keep_logs(lamp, log)
    sys.stdout.write(json.dumps(told, indent=1, default=str) + "\n")
    assert told["violations"] == [], f"events and logs are in {tmp_path}"
    assert told["leaks"] == []
    assert told["connections"]["served"] > CYCLES


def test_by_the_port_of_a_domain_all_clients_name_their_endpoint() -> None:
    """Those without TLS too, and no name server is asked."""
    uri = "postgresql://u:p@ep-a.soak.test:5499/neondb?sslmode=require"
    place = Place(0, "p", "br-a", "ep-a", reached(uri, by_domain=True))
    assert (place.host, place.address) == ("ep-a.soak.test", ("127.0.0.1", 5499))
    assert place.uri == f"{uri}&hostaddr=127.0.0.1"
    assert place.plain.endswith("?sslmode=disable&options=endpoint%3Dep-a&hostaddr=127.0.0.1")
    assert b"\0options\0endpoint=ep-a\0\0" in startup(place)
    own = Place(0, "p", "br-a", "ep-a", "postgresql://u:p@127.0.0.1:20000/neondb?sslmode=require")
    assert (own.address, own.named) == (("127.0.0.1", 20000), None)
    assert b"options" not in startup(own)


def test_a_plan_follows_from_its_seed_and_strikes_when_it_may() -> None:
    """The same seed is the same soak; all is killed in it, and at its end no process whose memory is compared."""
    cycles, endpoints = 600, 20
    found = plan(7, cycles=cycles, endpoints=endpoints, visits=["simple", "sql_over_http"])
    assert found == plan(7, cycles=cycles, endpoints=endpoints, visits=["simple", "sql_over_http"])
    assert found != plan(8, cycles=cycles, endpoints=endpoints, visits=["simple", "sql_over_http"])
    assert {one.endpoint for one in found[:endpoints]} == set(range(endpoints))
    struck = {one.number: one.strike for one in found if one.strike is not None}
    assert min(struck) >= cycles * QUIET
    assert set(struck.values()) == set(STRIKES)
    assert {kind for number, kind in struck.items() if number >= cycles * CALM} == set(CALM_STRIKES)


def test_what_breaks_is_excused_by_what_was_killed_meanwhile_alone(tmp_path: Path) -> None:
    """A record that excuses everything would find nothing."""
    record = Record(tmp_path / "events")
    with record.windows.open("gateway") as gateway:
        record.broken("ep-a", gateway.begin, "reset")
    with record.windows.open("postmaster", "ep-a") as postmaster:
        record.cut("ep-a", postmaster.begin, error="closed")
    assert record.violations == []
    later = postmaster.end + 0.001
    record.broken("ep-a", later, "reset")
    record.cut("ep-a", later, error="closed")
    record.refused("ep-a", later, code="57P03", message="not now")
    record.cut("ep-b", postmaster.begin, error="closed")
    # Its death takes no session with it: the relay has them.
    record.cut("ep-b", gateway.begin, error="closed")
    assert len(record.violations) == 5


def test_a_refused_connection_is_not_excused_by_the_gateway_s_death_alone(tmp_path: Path) -> None:
    """The platform has its ports open while another one is started; if it is away as well, nobody has."""
    record = Record(tmp_path / "events")
    refused = 'connection to server at "127.0.0.1", port 20000 failed: Connection refused'
    with record.windows.open("gateway") as gateway:
        record.broken("ep-a", gateway.begin, "server closed the connection unexpectedly")
        assert record.violations == []
        record.broken("ep-a", gateway.begin, refused)
        assert len(record.violations) == 1
        with record.windows.open("platform"):
            record.broken("ep-a", gateway.begin, refused)
    with record.windows.open("fall") as fall:
        record.broken("ep-a", fall.begin, refused)
    with record.windows.open("relay") as relay:
        assert len(record.violations) == 1
        record.broken("ep-a", relay.begin, refused)
    assert len(record.violations) == 2
