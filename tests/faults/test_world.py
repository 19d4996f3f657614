"""The platform comes and goes, and the world below it changes meanwhile."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from faults import world
from faults.scene import lamp_on
from lamplighter.platform.settings import run_dir_of
from support.lamp import Lamp, sql, temporary_lamp, wait_for

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def own_lamp() -> Iterator[Lamp]:
    """Not the session's: it is stopped and started here."""
    with temporary_lamp(start=False) as lamp:
        yield lamp


@pytest.fixture
def alive(own_lamp: Lamp) -> Lamp:
    """Running, however the test before has left it."""
    if own_lamp.process is not None and own_lamp.process.poll() is not None:
        own_lamp.wait_killed()
    if own_lamp.process is None:
        own_lamp.start()
    return own_lamp


class Home:
    """A project with a branch beside its default one; both run."""

    def __init__(self, lamp: Lamp) -> None:
        self.lamp = lamp
        made = lamp.project()
        self.id = made["project"]["id"]
        self.path = f"/projects/{self.id}"
        self.main = made["branch"]["id"]
        self.main_endpoint = made["endpoints"][0]["id"]
        beside = lamp.branch(self.id, "beside")
        self.beside = beside["branch"]["id"]
        self.beside_endpoint = beside["endpoints"][0]["id"]
        self.uri = world.uri(lamp, self.id, self.main)

    def operations(self) -> list[dict[str, object]]:
        found: list[dict[str, object]] = self.lamp.settle(self.id)
        return found


@pytest.fixture
def home(alive: Lamp) -> Iterator[Home]:
    home = Home(alive)
    yield home
    if alive.process is not None and alive.process.poll() is None:
        alive.settle(home.id)
        alive.call("DELETE", home.path)
        wait_for(lambda: home.main not in world.expected(alive).volumes, what="the deletion of the project")


def test_computes_outlive_the_control_plane(alive: Lamp, home: Home) -> None:
    """Killed and started again: the same postmasters, the same connections; and the new one can stop them."""
    writer = world.Writer(home.uri, "rows").start()
    before = world.postmasters(alive)
    alive.kill()
    assert world.postmasters(alive) == before
    writer.wait_for(5)
    alive.start()
    world.assert_tidy(alive)
    assert world.postmasters(alive) == before
    writer.assert_uncut()
    writer.stop()
    world.suspend(alive, home.id, home.main_endpoint)
    assert home.main not in world.postmasters(alive)
    world.assert_tidy(alive)


def test_found_as_it_was_left(alive: Lamp, home: Home) -> None:
    """Stopped and started: what was active is, on its port and with its password; what slept sleeps; nothing ran."""
    sql(home.uri, "create table t as select 5 as n")
    world.suspend(alive, home.id, home.beside_endpoint)
    assert alive.stop() == 0
    assert alive.postmasters() == []
    assert world.processes(alive) == {}
    assert world.mounts(alive) == set()
    assert [path for path in run_dir_of(alive.data_dir).glob("*") if path.is_dir()] == []
    alive.start()
    world.settled(alive, home.id)
    world.wait_state(alive, home.id, home.main_endpoint, "active")
    world.wait_state(alive, home.id, home.beside_endpoint, "idle")
    assert world.uri(alive, home.id, home.main) == home.uri
    assert sql(home.uri, "select n from t") == [(5,)]
    world.assert_tidy(alive)


def test_sigterm_in_the_midst_of_a_branch(alive: Lamp, home: Home) -> None:
    """What it is at is ended or taken up again by the next start."""
    sql(home.uri, "create table t as select 5 as n")
    wanted = {"branch": {"name": "at-the-end"}, "endpoints": [{"type": "read_write"}]}
    made = alive.call("POST", f"{home.path}/branches", wanted)
    assert alive.process is not None
    alive.process.send_signal(signal.SIGTERM)
    assert alive.stop() == 0
    assert alive.postmasters() == []
    alive.start()
    world.settled(alive, home.id)
    world.wait_state(alive, home.id, made["endpoints"][0]["id"], "active")
    assert sql(world.uri(alive, home.id, made["branch"]["id"]), "select n from t") == [(5,)]
    world.assert_tidy(alive)


def test_leftovers_are_removed(alive: Lamp, home: Home) -> None:
    """Postmasters that nobody asked for are stopped, what was half-made goes; a branch's data is never thrown away."""
    forgotten = alive.branch(home.id, "forgotten")["branch"]["id"]
    alive.kill()
    with world.catalog(alive) as conn:
        conn.execute("update endpoints set current_state = 'idle' where id = %s", (home.beside_endpoint,))
        # As if somebody had brought back an older catalog: its volume is there and its postmaster runs.
        conn.execute("delete from branches where id = %s", (forgotten,))
    volumes = world.storage(alive) / "volumes"
    strange, half, standby = (volumes / name for name in ("strange", ".new-br-half-00000000", "ep-gone-00000000"))
    for path in (strange, half, standby):
        (path / "data").mkdir(parents=True)
        (path / "data" / "PG_VERSION").write_text("17\n")
    left = world.differences(alive)
    assert any("postmasters" in one for one in left), left
    assert any("volumes" in one for one in left), left
    alive.start()
    mended = "; ".join(alive.shown["mended"])
    assert all(name in mended for name in (home.beside_endpoint, forgotten, "strange", "ep-gone-00000000")), mended
    assert [path.exists() for path in (strange, volumes / forgotten, half, standby)] == [True, True, False, False]
    assert {home.beside, forgotten}.isdisjoint(world.postmasters(alive))
    assert home.main in world.postmasters(alive)
    # By hand, as `lamp doctor` tells.
    alive.kill()
    shutil.rmtree(strange)
    shutil.rmtree(volumes / forgotten)
    alive.start()
    world.assert_tidy(alive)


def test_the_reserve_is_kept(alive: Lamp, home: Home) -> None:
    """Below the reserve a branch is refused with what to do, and branches that run go on."""
    writer = world.Writer(home.uri, "rows").start()
    alive.kill()
    alive.start(env={"LAMP_STORAGE_RESERVE": str(2**60)})
    for path, body in ((f"{home.path}/branches", {}), ("/projects", {"project": {}})):
        reply = alive.request("POST", path, body)
        assert reply.status_code == 422, reply.text
        assert "free" in reply.json()["message"]
        assert reply.json()["code"] == "STORAGE_RESERVE_REACHED"
    writer.assert_uncut()
    world.assert_tidy(alive)
    alive.kill()
    alive.start()
    alive.branch(home.id, "fits-again")
    writer.assert_uncut()
    writer.stop()


def test_a_port_that_somebody_took(alive: Lamp, home: Home) -> None:
    """While no gateway ran: other endpoints are reached all the same, and this one once the port is free."""
    beside = world.uri(alive, home.id, home.beside)
    port = int(psycopg.conninfo.conninfo_to_dict(beside)["port"])
    # A platform would keep the port for the next gateway.
    alive.kill()
    (gateway,) = alive.gateways()
    os.kill(gateway, signal.SIGKILL)
    with wait_for(lambda: stranger(port), what="the port"):
        alive.start()
        wait_for(lambda: answers(home.uri), what="an answer of the other endpoint")
    wait_for(lambda: answers(beside), what="an answer")
    world.assert_tidy(alive)


def stranger(port: int) -> socket.socket | None:
    """Somebody who listens there, as soon as nobody else does."""
    try:
        return socket.create_server(("127.0.0.1", port))
    except OSError:
        return None


def answers(uri: str) -> bool:
    try:
        return sql(uri, "select 1") == [(1,)]
    except psycopg.OperationalError:
        return False


def test_a_second_platform_on_the_same_directory(alive: Lamp, home: Home) -> None:
    """It is refused, says who runs there, and disturbs nothing."""
    before = world.postmasters(alive)
    done = subprocess.run(alive.command(), capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert "already" in done.stderr
    assert alive.process is not None
    assert str(alive.process.pid) in done.stderr
    assert world.postmasters(alive) == before
    assert sql(home.uri, "select 1") == [(1,)]


def test_a_control_plane_that_stood_still(alive: Lamp, home: Home) -> None:
    """Stopped by a signal for a while (as a laptop that sleeps) it goes on where it was."""
    assert alive.process is not None
    wanted = {"branch": {"name": "slow"}, "endpoints": [{"type": "read_write"}]}
    made = alive.call("POST", f"{home.path}/branches", wanted)
    alive.process.send_signal(signal.SIGSTOP)
    stopped = psutil.Process(alive.process.pid)
    wait_for(lambda: stopped.status() == psutil.STATUS_STOPPED, what="the stop")
    assert sql(home.uri, "select 1") == [(1,)]
    alive.process.send_signal(signal.SIGCONT)
    world.settled(alive, home.id)
    assert sql(world.uri(alive, home.id, made["branch"]["id"]), "select 1") == [(1,)]
    world.assert_tidy(alive)


@pytest.mark.root
def test_a_disk_that_fills_up() -> None:
    """In a pool that is full a branch is refused and leaves nothing; what runs goes on; later there is room again."""
    with lamp_on("reflink", size=1024 * 2**20) as lamp:
        lamp.start(env={"LAMP_STORAGE_RESERVE": str(64 * 2**20)})
        made = lamp.project()
        project, branch = made["project"]["id"], made["branch"]["id"]
        writer = world.Writer(world.uri(lamp, project, branch), "rows").start()
        ballast = world.storage(lamp) / "ballast"
        fill(ballast, leaving=32 * 2**20)
        reply = lamp.request("POST", f"/projects/{project}/branches", {})
        assert reply.status_code == 422, reply.text
        assert reply.json()["code"] == "STORAGE_RESERVE_REACHED"
        writer.assert_uncut()
        world.assert_tidy(lamp)
        ballast.unlink()
        lamp.branch(project, "fits-again")
        writer.assert_uncut()
        writer.stop()


def fill(path: Path, *, leaving: int) -> None:
    """Take all space of a file system but `leaving` bytes.

    Asked for, and not written: of a file that grows by writes XFS holds some space beyond its end, and gives it back.
    """
    with path.open("wb") as file:
        while (free := psutil.disk_usage(str(path.parent)).free) > leaving:
            size = os.fstat(file.fileno()).st_size
            os.posix_fallocate(file.fileno(), size, min(free - leaving, 4 * 2**20))
