"""Postmasters and backends are killed under a platform that runs, and under one that does not."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from faults import world
from lamplighter.compute import process
from support.lamp import Lamp, sql, temporary_lamp, wait_for

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def own_lamp() -> Iterator[Lamp]:
    """Not the session's: what is killed here is nobody else's."""
    with temporary_lamp() as lamp:
        yield lamp


class Victim:
    """A project of its own for each test, with a writer on it."""

    def __init__(self, lamp: Lamp) -> None:
        made = lamp.project()
        self.lamp = lamp
        self.project = made["project"]["id"]
        self.branch = made["branch"]["id"]
        self.endpoint = made["endpoints"][0]["id"]
        self.uri = world.uri(lamp, self.project, self.branch)
        self.writer = world.Writer(self.uri, "rows").start()
        self.writer.wait_for(5)

    @property
    def pid(self) -> int:
        return world.postmasters(self.lamp)[self.branch]

    def kill(self) -> set[int]:
        """SIGKILL the postmaster alone; answers its former children."""
        pid = self.pid
        children = {child for child, parent in world.processes(self.lamp).items() if parent == pid}
        os.kill(pid, signal.SIGKILL)
        return children

    def start(self) -> None:
        self.lamp.call("POST", f"/projects/{self.project}/endpoints/{self.endpoint}/start")
        world.settled(self.lamp, self.project)
        world.wait_state(self.lamp, self.project, self.endpoint, "active")

    def assert_nothing_lost(self) -> None:
        known = self.writer.stop()
        have = world.rows_of(self.uri, "rows")
        # One more may have been committed and not acknowledged any more.
        assert have in (list(range(1, known + 1)), list(range(1, known + 2)))


def kill_catalog(lamp: Lamp) -> None:
    """SIGKILL its postmaster, and wait for another: what runs in its backends still answers for a moment."""
    killed = world.postmasters(lamp)[world.CATALOG]
    os.kill(killed, signal.SIGKILL)
    wait_for(lambda: world.postmasters(lamp).get(world.CATALOG) not in (None, killed), what="another catalog")


@pytest.fixture
def victim(own_lamp: Lamp) -> Iterator[Victim]:
    if own_lamp.process is None:
        own_lamp.start()
    victim = Victim(own_lamp)
    yield victim
    victim.writer.stop()
    if own_lamp.process is None:
        own_lamp.start()
    own_lamp.call("DELETE", f"/projects/{victim.project}")
    wait_for(lambda: victim.branch not in world.expected(own_lamp).volumes, what="the deletion of the project")


def test_a_killed_postmaster_is_noticed_and_started_again(victim: Victim) -> None:
    """Its endpoint is idle and its children are gone; the next start recovers every acknowledged row."""
    lamp = victim.lamp
    children = victim.kill()
    found = world.wait_state(lamp, victim.project, victim.endpoint, "idle", seconds=15)
    assert found["suspended_at"]
    wait_for(lambda: not any(process.start_ticks(child) for child in children), what="the end of its children")
    assert '"compute.crashed"' in lamp.log.read_text()
    world.assert_tidy(lamp, crashed=frozenset({victim.endpoint}))
    victim.start()
    victim.assert_nothing_lost()
    world.assert_tidy(lamp)


def test_a_branch_of_what_crashed(victim: Victim) -> None:
    """Nobody need start a crashed compute before its branch can be branched, nor is anything committed missing."""
    victim.kill()
    world.wait_state(victim.lamp, victim.project, victim.endpoint, "idle")
    known = victim.writer.stop()
    made = victim.lamp.branch(victim.project, "of-the-crashed")
    have = world.rows_of(world.uri(victim.lamp, victim.project, made["branch"]["id"]), "rows")
    assert have in (list(range(1, known + 1)), list(range(1, known + 2)))
    victim.start()
    victim.assert_nothing_lost()


def test_a_pooled_client_of_what_crashed(victim: Victim) -> None:
    """It is cut off, and does not wait in the pooler for a start that nobody asks for; the next one wakes both."""
    pooled = world.uri(victim.lamp, victim.project, victim.branch, pooled=True)
    with psycopg.connect(pooled, autocommit=True) as client:
        client.execute("select 1")
        victim.kill()
        ended: list[psycopg.Error] = []

        def ask() -> None:
            try:
                while True:
                    client.execute("select pg_sleep(0.01)")
            except psycopg.Error as error:
                ended.append(error)

        threading.Thread(target=ask, daemon=True).start()
        wait_for(lambda: ended, seconds=30, what="the end of the pooled session")
        assert isinstance(ended[0], psycopg.OperationalError)
    # Before the crash is noted, some are told that nobody answers, or cut off with the pooler.
    world.wait_state(victim.lamp, victim.project, victim.endpoint, "idle")
    assert sql(pooled, "select 1") == [(1,)]
    victim.assert_nothing_lost()


def test_a_killed_backend(victim: Victim) -> None:
    """Postgres itself starts all backends anew: the endpoint stays active under the same postmaster."""
    lamp, pid = victim.lamp, victim.pid
    (backend,) = sql(victim.uri, "select pid from pg_stat_activity where query like 'insert into rows%%'")[0]
    os.kill(backend, signal.SIGKILL)
    wait_for(lambda: victim.writer.error is not None, what="the writer's end")

    def works() -> list[tuple[Any, ...]]:
        try:
            return sql(victim.uri, "select 1")
        except psycopg.OperationalError:
            return []

    wait_for(works, what="an answer after the recovery")
    assert victim.pid == pid
    assert world.endpoint(lamp, victim.project, victim.endpoint)["current_state"] == "active"
    victim.assert_nothing_lost()
    world.assert_tidy(lamp)


def test_a_killed_standby(victim: Victim) -> None:
    """Its primary goes on, and its next start makes it anew from there."""
    lamp = victim.lamp
    wanted = {"endpoint": {"branch_id": victim.branch, "type": "read_only"}}
    standby = lamp.call("POST", f"/projects/{victim.project}/endpoints", wanted)["endpoint"]["id"]
    world.settled(lamp, victim.project)
    os.kill(world.postmasters(lamp)[standby], signal.SIGKILL)
    world.wait_state(lamp, victim.project, standby, "idle")
    victim.writer.assert_uncut()
    lamp.call("POST", f"/projects/{victim.project}/endpoints/{standby}/start")
    world.settled(lamp, victim.project)
    uri = world.uri(lamp, victim.project, victim.branch, endpoint_id=standby)
    goal = victim.writer.wait_for(1)
    wait_for(lambda: len(world.rows_of(uri, "rows")) >= goal, what="the primary's rows on the standby")
    victim.writer.assert_uncut()
    world.assert_tidy(lamp)


def test_a_killed_catalog(victim: Victim) -> None:
    """The platform starts it again by itself, and goes on where it was; computes notice nothing."""
    lamp = victim.lamp
    killed = world.postmasters(lamp)[world.CATALOG]
    os.kill(killed, signal.SIGKILL)

    def answers() -> bool:
        status = lamp.request("GET", f"/projects/{victim.project}").status_code
        # While it is away a request is told to come again, and nothing worse.
        assert status in (200, 503), status
        return status == 200 and world.postmasters(lamp).get(world.CATALOG) not in (None, killed)

    wait_for(answers, what="an answer of the API")
    made = lamp.branch(victim.project, "after-the-catalog")
    assert len(world.rows_of(world.uri(lamp, victim.project, made["branch"]["id"]), "rows")) > 0
    victim.writer.assert_uncut()
    world.assert_tidy(lamp)


def test_a_catalog_killed_together_with_a_compute(victim: Victim) -> None:
    """The compute's crash is noted as soon as there is a catalog again to note it in."""
    lamp = victim.lamp
    victim.kill()
    kill_catalog(lamp)
    wait_for(lambda: lamp.request("GET", "/projects").status_code == 200, what="an answer of the API")
    world.wait_state(lamp, victim.project, victim.endpoint, "idle")
    victim.start()
    victim.assert_nothing_lost()


def test_a_catalog_killed_in_the_midst_of_operations(victim: Victim) -> None:
    """What was under way ends as asked once the catalog is back."""
    lamp = victim.lamp
    for number in range(3):
        name = f"child-{number}"
        wanted = {"branch": {"name": name}, "endpoints": [{"type": "read_write"}]}
        branch = lamp.call("POST", f"/projects/{victim.project}/branches", wanted)["branch"]["id"]
        kill_catalog(lamp)
        wait_for(lambda: lamp.request("GET", "/projects").status_code == 200, what="an answer of the API")
        world.settled(lamp, victim.project)
        assert len(world.rows_of(world.uri(lamp, victim.project, branch), "rows")) > 0
    victim.writer.assert_uncut()
    world.assert_tidy(lamp)


def test_a_postmaster_killed_while_nobody_watched(victim: Victim) -> None:
    """The next control plane finds it dead, and starts it again: it was active when it died."""
    lamp = victim.lamp
    lamp.kill()
    former = victim.pid
    victim.kill()
    lamp.start()
    world.settled(lamp, victim.project)
    assert world.endpoint(lamp, victim.project, victim.endpoint)["current_state"] == "active"
    assert victim.pid != former
    victim.assert_nothing_lost()
    world.assert_tidy(lamp)


def test_everything_killed_at_once(victim: Victim) -> None:
    """As when the host loses its power, but for what the kernel has not written yet."""
    lamp = victim.lamp
    lamp.kill()
    for pid in sorted(set(lamp.postmasters()) | set(world.processes(lamp))):
        # Children that notice the end of their postmaster are quicker.
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    lamp.start()
    world.settled(lamp, victim.project)
    victim.assert_nothing_lost()
    world.assert_tidy(lamp)
