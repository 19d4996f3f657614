"""`lamp status`, `lamp down` and `lamp doctor` beside a real platform."""

from __future__ import annotations

import json
import os
import signal
import socket
from pathlib import Path

import psycopg
import pytest

from lamplighter.platform.inspect import catalog_conninfo, find_platform, lock_holder
from lamplighter.platform.leftovers import find_leftovers
from support.lamp import Lamp, sql, temporary_lamp, uri_of, wait_for

from .conftest import Cli


def status_of(cli: Cli, lamp: Lamp) -> dict[str, object]:
    ran = cli("status", "--data-dir", lamp.data_dir, "--output", "json")
    assert ran.status == 0, ran.err
    told: dict[str, object] = json.loads(ran.out)
    return told


def kept(lamp: Lamp) -> list[tuple[int]]:
    """What the table `kept` holds; nothing while the compute is not up again."""
    try:
        return sql(lamp.connection_uri, "select n from kept")
    except psycopg.OperationalError:
        return []


class TestStatus:
    def test_projects_branches_and_endpoints_are_shown(self, cli: Cli, lamp: Lamp) -> None:
        """With what each takes: measured, not guessed."""
        made = lamp.project(name="shop")
        sql(uri_of(made), "create table t as select generate_series(1, 1000) as n")
        project_id = made["project"]["id"]
        child = lamp.branch(project_id, "dev")
        told = status_of(cli, lamp)
        assert told["platform"]["pid"] == lamp.process.pid  # type: ignore[index,union-attr]
        assert told["platform"]["base_url"] == lamp.url  # type: ignore[index]
        (project,) = (one for one in told["projects"] if one["id"] == project_id)  # type: ignore[attr-defined]
        main, dev = project["branches"]
        assert (main["is_default"], main["depth"], dev["name"], dev["depth"]) == (True, 0, "dev", 1)
        assert dev["id"] == child["branch"]["id"]
        endpoint = dev["endpoints"][0]
        assert endpoint["state"] == "active"
        assert child["endpoints"][0]["host"].endswith(f":{endpoint['port']}")
        assert endpoint["compute"]["port"] not in (None, endpoint["port"])
        assert 2**20 < endpoint["compute"]["memory_bytes"] < 2**30
        assert project["pg_version"] == 17
        if told["storage"]["driver"] != "copy":  # type: ignore[index]
            assert 0 <= dev["own_bytes"] < 2**30

    def test_text_names_them_too_and_no_secret(self, cli: Cli, lamp: Lamp) -> None:
        made = lamp.project(name="plain")
        ran = cli("status", "--data-dir", lamp.data_dir)
        assert ran.status == 0
        assert f"Project {made['project']['id']}  plain  PostgreSQL 17" in ran.out
        assert made["endpoints"][0]["id"] in ran.out
        assert lamp.key not in ran.out
        assert made["roles"][0]["password"] not in ran.out

    def test_failing_operations_are_shown(self, cli: Cli, lamp: Lamp) -> None:
        made = lamp.project()
        conninfo, _ = catalog_conninfo(lamp.data_dir, None)
        assert conninfo is not None
        with psycopg.connect(conninfo, autocommit=True) as conn:
            conn.execute(
                "update operations set status = 'failed', failures_count = 6, error = 'the disk is on fire'"
                " where id = (select id from operations where project_id = %s order by created_at desc limit 1)",
                (made["project"]["id"],),
            )
        assert "the disk is on fire" in cli("status", "--data-dir", lamp.data_dir).out

    def test_the_catalog_is_only_read(self, lamp: Lamp) -> None:
        from lamplighter.platform.inspect import connect_catalog

        conninfo, where = catalog_conninfo(lamp.data_dir, None)
        assert where == "its own Postgres"
        assert conninfo is not None
        with connect_catalog(conninfo) as conn, pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            conn.execute("delete from api_keys")

    def test_without_a_platform_it_says_so(self, cli: Cli, tmp_path: Path) -> None:
        ran = cli("status", "--data-dir", tmp_path / "none")
        assert ran.status == 3
        assert "not running; start it with `lamp up`" in ran.out
        assert not (tmp_path / "none").exists()

    def test_measuring_leaves_branches_alone(self, cli: Cli, lamp: Lamp) -> None:
        """Computes go on, and their files are whose they were."""
        made = lamp.project()
        sql(uri_of(made), "create table t (n int)")
        before = lamp.postmasters()
        owners = {path: path.stat().st_uid for path in (lamp.data_dir / "storage").iterdir()}
        status_of(cli, lamp)
        assert lamp.postmasters() == before
        assert {path: path.stat().st_uid for path in owners} == owners
        sql(uri_of(made), "insert into t values (1)")


class TestDown:
    def test_it_stops_the_platform_and_loses_nothing(self, cli: Cli) -> None:
        with temporary_lamp() as lamp:
            process = lamp.process
            assert process is not None
            sql(lamp.connection_uri, "create table kept as select 1 as n")
            ran = cli("down", "--data-dir", lamp.data_dir)
            assert ran.status == 0
            assert f"has stopped (process {process.pid}, " in ran.out
            assert lamp._ended(10) == 0
            assert lamp.postmasters() == []
            ran = cli("status", "--data-dir", lamp.data_dir, "--output", "json")
            assert ran.status == 3
            told = json.loads(ran.out)
            assert told["platform"]["state"] == "stopped"
            assert len(told["storage"]["volumes"]) == 1
            lamp.start()
            wait_for(lambda: kept(lamp) == [(1,)], what="the data")

    def test_none_running_is_no_error(self, cli: Cli, tmp_path: Path) -> None:
        ran = cli("down", "--data-dir", tmp_path)
        assert (ran.status, ran.out) == (0, f"No platform runs on {tmp_path}.\n")

    def test_what_a_crash_left_is_stopped_cleanly(self, cli: Cli) -> None:
        """Told before by `status` and `doctor`; afterwards neither has anything to tell, and nothing is lost."""
        with temporary_lamp() as lamp:
            sql(lamp.connection_uri, "create table kept as select 1 as n")
            lamp.kill()
            assert len(lamp.postmasters()) == 2
            ran = cli("status", "--data-dir", lamp.data_dir)
            assert ran.status == 3
            assert "A platform crashed here and its computes go on" in ran.out
            assert {one.kind for one in find_leftovers(lamp.data_dir)} - {"run directory"} == {
                "compute",
                "gateway",
            }
            ran = cli("down", "--data-dir", lamp.data_dir)
            assert ran.status == 0
            assert "one had crashed there" in ran.out
            assert lamp.postmasters() == []
            assert not [one for one in find_leftovers(lamp.data_dir) if one.kind != "run directory"]
            assert str(lamp.data_dir) not in Path("/proc/self/mountinfo").read_text()
            lamp.start()
            wait_for(lambda: kept(lamp) == [(1,)], what="the data")

    def test_a_platform_that_starts_is_stopped_too(self, cli: Cli) -> None:
        """It is found by the lock it holds, before it has said where it answers."""
        with temporary_lamp(start=False) as lamp:
            lamp.start(wait=False)
            process = lamp.process
            assert process is not None
            # The lock comes first, signals are taken from the first sentence on.
            wait_for(lambda: lamp.log.read_text() or process.poll() is not None, what="the start")
            assert lock_holder(lamp.data_dir) == process.pid
            assert find_platform(lamp.data_dir).state in ("busy", "running")
            assert cli("down", "--data-dir", lamp.data_dir).status == 0
            assert lamp._ended(10) == 0
            assert lamp.postmasters() == []

    def test_an_impatient_caller_is_told(self, cli: Cli) -> None:
        """A platform that does not end in time is left to it."""
        with temporary_lamp() as lamp:
            process = lamp.process
            assert process is not None
            process.send_signal(signal.SIGSTOP)
            try:
                ran = cli("down", "--data-dir", lamp.data_dir, "--timeout", "0.3")
            finally:
                process.send_signal(signal.SIGCONT)
            assert ran.status == 1
            assert f"Error: the platform (process {process.pid}) is still stopping after 0.3 s" in ran.err
            assert lamp._ended(60) == 0

    def test_a_process_that_only_has_the_number_is_left_alone(self, cli: Cli, tmp_path: Path) -> None:
        """The state of a platform that is long gone may name a process of somebody else's."""
        state = {"pid": os.getpid(), "started_at": 1.0, "base_url": "http://x/api/v2", "run_dir": str(tmp_path / "r")}
        (tmp_path / "platform.json").write_text(json.dumps(state))
        (tmp_path / "platform.lock").touch()
        ran = cli("down", "--data-dir", tmp_path)
        assert (ran.status, ran.out) == (0, f"No platform runs on {tmp_path}.\n")


class TestDoctor:
    def test_a_host_that_can_run_one(self, cli: Cli, lamp: Lamp) -> None:
        """Beside a running platform: its facts, a measured branch, and nothing of it is a leftover."""
        # An operation under way is no leftover, but its compute may be between two states.
        lamp.project()
        ran = cli("doctor", "--data-dir", lamp.data_dir, "--output", "json", env={"LAMP_PORT": "0"})
        told = json.loads(ran.out)
        assert told["problems"] == []
        assert ran.status == 0
        assert [one["major"] for one in told["postgres"]] == [14, 15, 16, 17, 18]
        assert next(one for one in told["postgres"] if one["major"] == 17)["installed"]
        assert {one["driver"] for one in told["drivers"]["drivers"]} == {"btrfs", "reflink", "overlay", "copy"}
        assert all(one["why"] or one["usable"] for one in told["drivers"]["drivers"])
        assert told["drivers"]["chosen"] == lamp.shown["storage_driver"]
        assert told["drivers"]["cost"]["milliseconds"] > 0
        assert told["catalog"]["reachable"]
        assert [one for one in told["leftovers"] if one["kind"] != "run directory"] == []
        assert list((lamp.data_dir / "storage").glob(".probe*")) == []

    def test_what_prevents_a_platform_is_told_with_what_to_do(self, cli: Cli, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
            port, domain_port = one.getsockname()[1], other.getsockname()[1]
            env = {"LAMP_PORT": str(port), "LAMP_POSTGRES_BIN": str(tmp_path)}
            env |= {"LAMP_DOMAIN": "db.example.test", "LAMP_DOMAIN_PORT": str(domain_port)}
            ran = cli("doctor", "--data-dir", "/proc/lamplighter", env=env)
        assert ran.status == 1
        assert f"the API cannot listen on 127.0.0.1:{port} (process {os.getpid()} " in ran.out
        assert f"the domain cannot listen on 127.0.0.1:{domain_port} (process {os.getpid()} " in ran.out
        assert "there is no `postgres` in it" in ran.out
        assert "Problems: no platform can run here as it is" in ran.out
        assert ran.out.count("do: ") >= 2

    def test_a_place_that_is_not_there_stays_so(self, cli: Cli, tmp_path: Path) -> None:
        """Its drivers are tried in the directory above, which is left as it was."""
        tmp_path.chmod(0o755)
        told = json.loads(cli("doctor", "--data-dir", tmp_path / "new", "--output", "json", env={"LAMP_PORT": "0"}).out)
        assert told["drivers"]["place"] == str(tmp_path)
        assert told["drivers"]["chosen"]
        assert list(tmp_path.iterdir()) == []

    def test_a_volume_of_no_branch_is_a_leftover(self, lamp: Lamp) -> None:
        volume = lamp.data_dir / "storage" / "volumes" / "br-stray"
        volume.mkdir()
        try:
            found = [one.what for one in find_leftovers(lamp.data_dir)]
        finally:
            volume.rmdir()
        assert "br-stray belongs to no branch" in found


class TestPostgres:
    def test_majors_are_listed(self, cli: Cli) -> None:
        told = json.loads(cli("postgres", "list", "--output", "json").out)
        assert [one["major"] for one in told] == [14, 15, 16, 17, 18]
        assert all((one["bin_dir"] is None) == (one["state"] != "installed") for one in told)
        assert "MAJOR" in cli("postgres", "list").out

    def test_a_major_in_use_stays(self, cli: Cli, lamp: Lamp) -> None:
        ran = cli("postgres", "remove", "17")
        assert ran.status == 1
        assert "Error: PostgreSQL 17 is in use (process " in ran.err
        assert lamp.call("GET", "/users/me")

    def test_a_major_that_is_not_installed(self, cli: Cli, tmp_path: Path) -> None:
        ran = cli("postgres", "remove", "16", env={"LAMP_CACHE_DIR": str(tmp_path)})
        assert ran.status == 3
        assert "PostgreSQL 16 is not installed" in ran.err


class TestStorage:
    def test_status_of_a_platform(self, cli: Cli, lamp: Lamp) -> None:
        ran = cli("storage", "status", "--data-dir", lamp.data_dir)
        assert ran.status == 0
        assert f"Driver   {lamp.shown['storage_driver']}" in ran.out
        told = json.loads(cli("storage", "status", "--data-dir", lamp.data_dir, "--output", "json").out)
        assert told["driver"] == lamp.shown["storage_driver"]
        assert told["pool"] is None

    @pytest.mark.root
    def test_a_pool_is_made_and_used(self, cli: Cli) -> None:
        """From `init` over `up` to branches in it; a second pool is refused."""
        with temporary_lamp(start=False) as lamp:
            place = ("--data-dir", lamp.data_dir)
            try:
                ran = cli("storage", "init", "--size", "1G", "--fs", "btrfs", *place)
                assert ran.status == 0, ran.err
                assert "Made a pool of 1.0 GiB (btrfs)" in ran.out
                ran = cli("storage", "init", "--size", "1G", *place)
                assert ran.status == 1
                assert "There is a pool in" in ran.err
                lamp.start()
                assert lamp.shown["storage_driver"] == "btrfs"
                told = json.loads(cli("storage", "status", "--output", "json", *place).out)
                assert told["pool"]["mounted"]
                assert told["pool_used_bytes"] > 0
                assert lamp.stop() == 0
            finally:
                lamp.close()
                unmount(lamp.data_dir / "storage" / "pool")

    @pytest.mark.root
    def test_a_pool_beside_volumes_is_refused(self, cli: Cli) -> None:
        with temporary_lamp() as lamp:
            assert lamp.stop() == 0
            ran = cli("storage", "init", "--size", "1G", "--data-dir", lamp.data_dir)
            assert ran.status == 1
            assert "volumes that lie in no pool" in ran.err


def unmount(path: Path) -> None:
    from lamplighter.storage import linux

    if path.is_mount():
        linux.unmount(path)
