"""A gateway that hangs has its ports and serves nobody: it is ended, and whoever waits there is served by the next."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import psycopg
import pytest

from lamplighter.compute import process
from support.lamp import Lamp, temporary_lamp, uri_of, wait_for


@pytest.fixture(scope="module")
def lamp() -> Iterator[Lamp]:
    with temporary_lamp(driver="copy") as lamp:
        yield lamp


@pytest.fixture(scope="module")
def uri(lamp: Lamp) -> str:
    return uri_of(lamp.project(default_endpoint_settings={"suspend_timeout_seconds": -1}))


def connect(uri: str) -> psycopg.Connection:
    return psycopg.connect(uri, autocommit=True, connect_timeout=60)


def stop_front(lamp: Lamp) -> int:
    (front,) = lamp.gateways()
    os.kill(front, signal.SIGSTOP)
    return front


def is_gone(front: int) -> bool:
    return process.start_ticks(front) is None


def test_a_gateway_that_hangs_is_replaced(lamp: Lamp, uri: str) -> None:
    """Connections that the relay has got live on."""
    with connect(uri) as before:
        front = stop_front(lamp)
        with connect(uri) as connection:
            assert connection.execute("select 1").fetchone() == (1,)
        assert is_gone(front)
        assert before.execute("select 1").fetchone() == (1,)


def test_a_change_that_is_not_acknowledged_tells_that_it_hangs(lamp: Lamp, uri: str) -> None:
    front = stop_front(lamp)
    lamp.project()
    wait_for(lambda: is_gone(front), what="the end of the gateway")
    with connect(uri) as connection:
        assert connection.execute("select 1").fetchone() == (1,)


def test_a_platform_that_finds_a_gateway_that_hangs_replaces_it(lamp: Lamp, uri: str) -> None:
    with connect(uri) as before:
        lamp.kill()
        front = stop_front(lamp)
        lamp.start()
        assert is_gone(front)
        with connect(uri) as connection:
            assert connection.execute("select 1").fetchone() == (1,)
        assert before.execute("select 1").fetchone() == (1,)
