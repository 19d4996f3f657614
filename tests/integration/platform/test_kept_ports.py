"""Whoever connects to a real platform while its gateway is killed waits, and is served by the next one."""

from __future__ import annotations

import errno
import os
import select
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import urlsplit

import psutil
import psycopg
import pytest

from support.lamp import Lamp, sql, temporary_lamp, uri_of, wait_for

SECONDS = 3.0


@pytest.fixture(scope="module")
def lamp() -> Iterator[Lamp]:
    with temporary_lamp(driver="copy") as lamp:
        yield lamp


@pytest.fixture(scope="module")
def made(lamp: Lamp) -> dict[str, Any]:
    """A project whose endpoint stays awake."""
    return lamp.project(default_endpoint_settings={"suspend_timeout_seconds": -1})


def port_of(uri: str) -> int:
    return urlsplit(uri).port or 0


def is_refused(port: int) -> bool:
    with socket.socket() as sock:
        sock.settimeout(10)
        return sock.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED


@dataclass
class Crowd:
    """Clients that come one after the other until it is over: some who only connect, others who want an answer."""

    uri: str
    connects: Counter[int] = field(default_factory=Counter)
    #: When each session began and ended, and why it was not served.
    sessions: list[tuple[float, float, str]] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self._threads = [threading.Thread(target=work) for work in (self._knock, self._knock, self._ask, self._ask)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(60)

    def _knock(self) -> None:
        while not self._over.is_set():
            with socket.socket() as sock:
                sock.settimeout(30)
                self.connects[sock.connect_ex(("127.0.0.1", port_of(self.uri)))] += 1

    def _ask(self) -> None:
        while not self._over.is_set():
            begin = time.monotonic()
            try:
                problem = "" if sql(self.uri, "select 1") == [(1,)] else "another answer"
            except psycopg.Error as error:
                problem = str(error)
            self.sessions.append((begin, time.monotonic(), problem))

    def unserved(self, *, spare: list[tuple[float, float]]) -> list[str]:
        """Sessions that failed and were not in the midst of a handshake when something was killed."""
        return [
            problem
            for begin, end, problem in self.sessions
            if problem and not any(begin <= dead and killed <= end for killed, dead in spare)
        ]


def kill(pid: int) -> tuple[float, float]:
    """From when to when it was dying."""
    handle = os.pidfd_open(pid)
    try:
        killed = time.monotonic()
        os.kill(pid, 9)
        select.select([handle], [], [], 30)
        return killed, time.monotonic()
    finally:
        os.close(handle)


def listening(lamp: Lamp, port: int) -> int | None:
    """The gateway that has the port."""
    for pid in lamp.gateways():
        try:
            found = psutil.Process(pid).net_connections("tcp")
        except psutil.NoSuchProcess:
            continue
        if any(one.status == psutil.CONN_LISTEN and one.laddr.port == port for one in found):
            return pid
    return None


def nobody_is_refused(lamp: Lamp, uri: str, *, kills: int = 2) -> None:
    sql(uri, "select 1")
    spare = []
    over = threading.Event()
    with Crowd(uri) as crowd:
        for _ in range(kills):
            front = wait_for(lambda: listening(lamp, port_of(uri)), what="a gateway")
            spare.append(kill(front))
            wait_for(lambda front=front: listening(lamp, port_of(uri)) not in (None, front), what="another gateway")
        # Not to wait for a condition, but that there are more who might be refused.
        over.wait(SECONDS)
    assert set(crowd.connects) == {0}
    assert crowd.unserved(spare=spare) == []
    last = max(dead for _, dead in spare)
    assert any(not problem for begin, _, problem in crowd.sessions if begin > last)


def test_nobody_is_refused_while_the_gateway_is_killed(lamp: Lamp, made: dict[str, Any]) -> None:
    nobody_is_refused(lamp, uri_of(made))


def test_nor_once_another_platform_has_found_it(lamp: Lamp, made: dict[str, Any]) -> None:
    """A gateway that was started by a platform before, whose duplicates are gone."""
    lamp.kill()
    assert sql(uri_of(made), "select 1") == [(1,)]
    lamp.start()
    nobody_is_refused(lamp, uri_of(made))


def test_the_port_of_an_endpoint_that_is_gone_refuses_and_belongs_to_nobody(lamp: Lamp) -> None:
    gone = lamp.project()
    port = port_of(uri_of(gone))
    assert not is_refused(port)
    lamp.call("DELETE", f"/projects/{gone['project']['id']}")
    wait_for(lambda: is_refused(port), what="a closed port")

    def is_free() -> bool:
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind(("127.0.0.1", port))
                sock.listen()
            except OSError:
                return False
            return True

    wait_for(is_free, what="a port for others")
    # What refuses stays so when the next gateway is there.
    front = lamp.gateways()[0]
    kill(front)
    wait_for(lambda: lamp.gateways() not in ([], [front]), what="another gateway")
    assert is_refused(port)


def test_an_endpoint_that_is_gone_while_the_gateway_is_away_leaves_no_port(lamp: Lamp) -> None:
    gone = lamp.project()
    port = port_of(uri_of(gone))
    kill(wait_for(lambda: listening(lamp, port), what="a gateway"))
    lamp.call("DELETE", f"/projects/{gone['project']['id']}")
    wait_for(lambda: is_refused(port), what="a closed port")


def test_lamp_down_leaves_no_port(lamp: Lamp, made: dict[str, Any]) -> None:
    port = port_of(uri_of(made))
    assert not is_refused(port)
    assert lamp.stop() == 0
    assert is_refused(port)
    lamp.start()
    assert sql(uri_of(made), "select 1") == [(1,)]
