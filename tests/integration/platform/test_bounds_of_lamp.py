"""What `lamp up` bounds, and what it knows of its domain's port, on a real platform."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx2
import psycopg
import pytest

from lamplighter.platform.inspect import gateway_has
from support.front import free_port
from support.lamp import Lamp, temporary_lamp, uri_of, wait_for
from support.lamp_process import run_lamp

DOMAIN = "db.example.test"


@pytest.fixture(scope="module")
def domain_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def lamp(domain_port: int) -> Iterator[Lamp]:
    options = ("--domain", DOMAIN, "--domain-port", str(domain_port), "--endpoint-connections", "2")
    with temporary_lamp(driver="copy", options=options) as lamp:
        yield lamp


@pytest.fixture(scope="module")
def made(lamp: Lamp) -> dict[str, Any]:
    """A project whose endpoint stays awake."""
    return lamp.project(default_endpoint_settings={"suspend_timeout_seconds": -1})


def api(lamp: Lamp) -> str:
    return lamp.url.removesuffix("/api/v2")


def ask(lamp: Lamp, uri: str) -> httpx2.Response:
    """SQL over HTTP, by the API's port."""
    headers = {"neon-connection-string": uri}
    return httpx2.post(api(lamp) + "/sql", json={"query": "select 6 * 7 as n"}, headers=headers, timeout=60)


def test_an_endpoint_has_no_more_clients_than_was_said(made: dict[str, Any]) -> None:
    uri = uri_of(made)
    with contextlib.ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(psycopg.connect(uri, hostaddr="127.0.0.1"))
        with pytest.raises(psycopg.OperationalError, match="The endpoint has 2 connections, which is its limit"):
            psycopg.connect(uri, hostaddr="127.0.0.1")


def test_the_head_of_a_request_to_the_api_is_bounded(lamp: Lamp) -> None:
    place = urlsplit(lamp.url)
    with socket.create_connection((place.hostname, place.port), timeout=30) as sock:
        sock.sendall(b"GET /api/v2/projects HTTP/1.1\r\n" + b"A: b\r\n" * 12_000)
        assert sock.recv(65536).startswith(b"HTTP/1.1 431 ")
    assert lamp.call("GET", "/users/me")


@pytest.mark.parametrize("header", ["Forwarded", "X-Forwarded-For", "X-Forwarded-Proto", "Via", "X-Real-IP"])
def test_figures_are_for_this_host_and_not_for_who_comes_by_a_proxy_of_it(lamp: Lamp, header: str) -> None:
    def status(**headers: str) -> int:
        return httpx2.get(api(lamp) + "/metrics", headers=headers).status_code

    assert status() == 200
    assert status(**{header: "192.0.2.1"}) == 401
    assert status(**{header: "192.0.2.1", "Authorization": f"Bearer {lamp.key}"}) == 200


def test_sql_by_the_apis_port_waits_for_the_next_gateway(lamp: Lamp, made: dict[str, Any]) -> None:
    assert ask(lamp, uri_of(made)).json()["rows"] == [{"n": 42}]
    (front,) = lamp.gateways()
    os.kill(front, signal.SIGKILL)
    wait_for(lambda: front not in lamp.gateways(), what="the gateway's end")
    answer = ask(lamp, uri_of(made))
    assert (answer.status_code, answer.json()["rows"]) == (200, [{"n": 42}])


def test_the_domains_port_may_be_had_by_the_gateway_that_a_platform_left(lamp: Lamp, domain_port: int) -> None:
    wait_for(lambda: gateway_has(lamp.data_dir, domain_port), what="a gateway")
    lamp.kill()
    assert gateway_has(lamp.data_dir, domain_port)
    lamp.start()


def test_the_doctor_knows_whose_the_domains_port_is(lamp: Lamp, domain_port: int) -> None:
    wait_for(lambda: gateway_has(lamp.data_dir, domain_port), what="a gateway")
    env = {**os.environ, "LAMP_PORT": "0", "LAMP_DOMAIN": DOMAIN, "LAMP_DOMAIN_PORT": str(domain_port)}
    told = json.loads(run_lamp(["doctor", "--data-dir", str(lamp.data_dir), "--output", "json"], env=env).out)
    assert told["domain"] == {"host": "127.0.0.1", "port": domain_port, "free": False, "holder": "this platform"}
    assert told["problems"] == []
