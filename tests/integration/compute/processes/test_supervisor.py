"""Start, stop and what happens in between, on real postmasters."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from dataclasses import replace

import psycopg
import pytest

from lamplighter.compute import process
from lamplighter.compute.config import ALLOWED
from lamplighter.compute.errors import (
    DataDirInUse,
    NotRunning,
    PortTaken,
    RunDirUnfit,
    SettingsRefused,
    StartFailed,
    StillRunning,
)
from lamplighter.compute.supervisor import Supervisor
from lamplighter.compute.user import drop_prefix


async def value(supervisor, compute_id, query, dbname="postgres"):
    connection = await supervisor.connect(compute_id, dbname)
    try:
        return (await (await connection.execute(query)).fetchone())[0]
    finally:
        await connection.close()


def wait_dead(pid):
    """Wait for a child without the event loop, so that no supervisor hears of its end."""
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


@pytest.mark.parametrize("major", [14, 15, 16, 17, 18])
async def test_each_major_starts_answers_and_stops(house, major, free_port):
    supervisor = house.supervisor()
    spec = house.spec(major=major, port=free_port)
    status = await supervisor.start(spec)
    assert status.state == "running"
    assert status.port == free_port
    assert await value(supervisor, spec.id, "SHOW fsync") == "on"
    assert int(await value(supervisor, spec.id, "SHOW server_version_num")) // 10000 == major
    await supervisor.stop(spec.id)
    assert supervisor.status(spec.id).state == "stopped"
    assert not process.on_directory(process.postgres_processes(), spec.data_dir)
    assert not (spec.data_dir / "postmaster.pid").exists()
    assert list(house.run_dir.iterdir()) == []


async def test_a_start_of_what_runs_changes_nothing(house):
    supervisor = house.supervisor()
    spec = house.spec()
    first = await supervisor.start(spec)
    assert await supervisor.start(spec) == first
    one, other = await asyncio.gather(supervisor.start(spec), supervisor.start(spec))
    assert one == other == first


async def test_a_start_with_another_spec_restarts(house):
    supervisor = house.supervisor()
    spec = house.spec()
    first = await supervisor.start(spec)
    second = await supervisor.start(replace(spec, cu=1))
    assert second.pid != first.pid
    assert await value(supervisor, spec.id, "SHOW max_connections") == "450"
    assert house.crashes == []


async def test_a_stop_of_what_does_not_run_is_no_error(house):
    supervisor = house.supervisor()
    await supervisor.stop("ep-never-started")
    assert supervisor.status("ep-never-started").state == "stopped"
    with pytest.raises(NotRunning):
        await supervisor.connect("ep-never-started")


async def test_an_immediate_stop_leaves_no_process_and_recovers(house):
    supervisor = house.supervisor()
    spec = house.spec()
    await supervisor.start(spec)
    async with await supervisor.connect(spec.id, "neondb") as connection:
        await connection.execute("CREATE TABLE public.t AS SELECT 1 AS a")
    await supervisor.stop(spec.id, mode="immediate")
    assert not process.on_directory(process.postgres_processes(), spec.data_dir)
    await supervisor.start(spec)
    assert await value(supervisor, spec.id, "SELECT count(*) FROM public.t", "neondb") == 1


async def test_a_killed_postmaster_is_noticed_and_nothing_committed_is_lost(house, until):
    supervisor = house.supervisor()
    spec = house.spec()
    status = await supervisor.start(spec)
    connection = await supervisor.connect(spec.id, "neondb")
    await connection.execute("CREATE TABLE public.t (a int)")
    for number in range(100):
        await connection.execute("INSERT INTO public.t VALUES (%s)", (number,))
    os.kill(status.pid, signal.SIGKILL)
    await until(lambda: house.crashes)
    assert house.crashes[0][0] == spec.id
    assert "SIGKILL" in house.crashes[0][1]
    crashed = supervisor.status(spec.id)
    assert (crashed.state, crashed.reason) == ("crashed", house.crashes[0][1])
    with pytest.raises(NotRunning):
        await supervisor.connect(spec.id)
    await connection.close()
    assert (await supervisor.start(spec)).state == "running"
    assert await value(supervisor, spec.id, "SELECT count(*) FROM public.t", "neondb") == 100
    assert len(house.crashes) == 1


async def test_a_backend_that_outlives_its_postmaster_is_killed(house, until):
    """A backend that computes does not notice its postmaster's death, and would write beside the next one."""
    supervisor = house.supervisor()
    spec = house.spec()
    status = await supervisor.start(spec)
    connection = await supervisor.connect(spec.id)
    backend = connection.info.backend_pid
    # Stopped, it cannot see the end of its postmaster.
    os.kill(backend, signal.SIGSTOP)
    os.kill(status.pid, signal.SIGKILL)
    await until(lambda: house.crashes)
    assert process.start_ticks(backend) is None
    assert not process.on_directory(process.postgres_processes(), spec.data_dir)
    assert (await supervisor.start(spec)).state == "running"
    await connection.close()


async def test_settle_returns_when_no_backend_of_a_crashed_postmaster_writes_any_more(house):
    """A clone that is taken at once after a crash must not be copied under a writer."""
    supervisor = house.supervisor()
    spec = house.spec()
    await supervisor.settle(spec.id)
    status = await supervisor.start(spec)
    await supervisor.settle(spec.id)
    assert supervisor.status(spec.id).state == "running"
    connection = await supervisor.connect(spec.id)
    backend = connection.info.backend_pid
    os.kill(backend, signal.SIGSTOP)
    os.kill(status.pid, signal.SIGKILL)
    wait_dead(status.pid)
    assert process.start_ticks(backend) is not None
    await supervisor.settle(spec.id)
    assert process.start_ticks(backend) is None
    assert not process.on_directory(process.postgres_processes(), spec.data_dir)
    assert supervisor.status(spec.id).state != "running"
    await connection.close()


async def test_settle_says_that_a_stranger_works_on_the_data_of_a_crashed_compute(house, until):
    supervisor = house.supervisor()
    spec = house.spec()
    status = await supervisor.start(spec)
    os.kill(status.pid, signal.SIGKILL)
    await until(lambda: house.crashes)
    thief = replace(spec, id="ep-thief")
    await supervisor.start(thief)
    with pytest.raises(DataDirInUse):
        await supervisor.settle(spec.id)
    assert supervisor.status(thief.id).state == "running"


async def test_what_is_forgotten_leaves_nothing(house, until):
    logs_dir = house.place / "logs"
    supervisor = house.supervisor(log_dir=logs_dir)
    spec = house.spec()
    status = await supervisor.start(spec)
    with pytest.raises(StillRunning):
        await supervisor.forget(spec.id)
    os.kill(status.pid, signal.SIGKILL)
    await until(lambda: house.crashes)
    (logs_dir / "ep-one.log.1").touch()
    assert sorted(path.name for path in logs_dir.iterdir()) == ["ep-one.log", "ep-one.log.1"]
    await supervisor.forget(spec.id)
    assert list(logs_dir.iterdir()) == []
    assert list(house.run_dir.iterdir()) == []
    assert supervisor.status(spec.id).state == "stopped"
    assert list(supervisor.list()) == []
    await supervisor.forget(spec.id)
    assert supervisor._computes == {}
    await supervisor.close()
    assert not house.run_dir.exists()


async def test_a_start_that_waits_while_its_compute_is_forgotten_is_known(house):
    supervisor = house.supervisor()
    spec = house.spec()
    await supervisor.start(spec)
    await asyncio.gather(supervisor.stop(spec.id), supervisor.forget(spec.id), supervisor.start(spec))
    assert supervisor.status(spec.id).state == "running"


async def test_a_postmaster_pid_file_that_names_a_living_stranger_does_not_hinder(house):
    """After a crash somebody else, even of the same user, may have the number."""
    supervisor = house.supervisor()
    spec = house.spec()
    other = house.spec("ep-other")
    stranger = await supervisor.start(other)
    lock = spec.data_dir / "postmaster.pid"
    lock.write_text(f"{stranger.pid}\n{spec.data_dir}\n1\n5432\n/tmp\n\n  123  456\nready\n")
    os.chown(lock, *house.owner)
    assert (await supervisor.start(spec)).state == "running"
    assert supervisor.status("ep-other").pid == stranger.pid


async def test_two_computes_do_not_get_one_data_directory(house):
    supervisor = house.supervisor()
    spec = house.spec()
    status = await supervisor.start(spec)
    with pytest.raises(DataDirInUse) as caught:
        await supervisor.start(replace(spec, id="ep-thief"))
    assert caught.value.pid == status.pid
    assert supervisor.status("ep-thief").state == "stopped"
    assert supervisor.status(spec.id).state == "running"


async def test_a_taken_port_is_said_so(house):
    supervisor = house.supervisor()
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        port = sock.getsockname()[1]
        spec = house.spec(port=port)
        with pytest.raises(PortTaken, match=str(port)):
            await supervisor.start(spec)
    assert supervisor.status(spec.id).state == "stopped"
    assert house.crashes == []
    assert (await supervisor.start(spec)).port == port


async def test_a_value_that_postgres_does_not_take_is_said_so(house):
    supervisor = house.supervisor()
    spec = house.spec(settings={"work_mem": "many"})
    with pytest.raises(SettingsRefused, match="work_mem"):
        await supervisor.start(spec)
    with pytest.raises(SettingsRefused, match="fsync"):
        await supervisor.start(replace(spec, settings={"fsync": "off"}))
    assert await supervisor.validate(17, {"work_mem": "many", "statement_timeout": "5s", "jit": "perhaps"}) == [
        'Invalid value for parameter "work_mem": "many".',
        'Parameter "jit" requires a Boolean value.',
    ]
    assert (await supervisor.start(replace(spec, settings={"work_mem": "5MB"}))).state == "running"
    assert await value(supervisor, spec.id, "SHOW work_mem") == "5MB"


async def test_a_damaged_directory_is_said_so_with_the_words_of_postgres(house):
    supervisor = house.supervisor()
    spec = house.spec()
    (spec.data_dir / "global" / "pg_control").unlink()
    with pytest.raises(StartFailed, match="pg_control"):
        await supervisor.start(spec)
    assert supervisor.status(spec.id).state == "stopped"


async def test_reload_changes_what_can_be_changed_and_names_what_cannot(house, until):
    supervisor = house.supervisor()
    spec = house.spec()
    status = await supervisor.start(spec)
    changed = replace(spec, settings={"work_mem": "7MB"})
    assert await supervisor.reload(changed) == ()

    async def seen():
        return await value(supervisor, spec.id, "SHOW work_mem") == "7MB"

    await until(seen)
    assert supervisor.spec(spec.id) == changed
    assert (await supervisor.start(changed)).pid == status.pid
    assert await supervisor.reload(replace(changed, cu=1)) == ("max_connections", "shared_buffers")
    with pytest.raises(SettingsRefused, match="work_mem"):
        await supervisor.reload(replace(spec, settings={"work_mem": "many"}))


async def test_what_runs_is_adopted_by_the_next_supervisor_in_one_process(house, until):
    first = house.supervisor()
    spec = house.spec()
    status = await first.start(spec)
    await first.close()
    second = house.supervisor()
    assert list(await second.adopt()) == [status]
    assert (await second.start(spec)).pid == status.pid
    assert await value(second, spec.id, "SELECT 1") == 1
    os.kill(status.pid, signal.SIGKILL)
    await until(lambda: house.crashes)
    assert second.status(spec.id).state == "crashed"
    third = house.supervisor()
    assert [(each.id, each.state) for each in await third.adopt()] == [(spec.id, "crashed")]
    await third.stop(spec.id)
    assert list(house.run_dir.iterdir()) == []


async def test_memory_and_connections_are_counted(house):
    supervisor = house.supervisor()
    spec = house.spec()
    assert await supervisor.memory(spec.id) is None
    await supervisor.start(spec)
    assert 2_000_000 < await supervisor.memory(spec.id) < 200_000_000
    assert await supervisor.connections(spec.id) == 0
    assert "neondb" in await supervisor.database_sizes(spec.id)


async def test_a_log_that_grew_is_cut_at_the_next_start(house):
    logs_dir = house.place / "logs"
    supervisor = house.supervisor(log_dir=logs_dir)
    spec = house.spec()
    await supervisor.start(spec)
    await supervisor.stop(spec.id)
    (log,) = logs_dir.iterdir()
    with log.open("ab") as file:
        file.truncate(5_000_000)
    await supervisor.start(spec)
    assert log.stat().st_size < 10_000
    assert log.with_name(log.name + ".1").stat().st_size == 5_000_000


async def test_a_run_directory_too_deep_for_sockets_is_refused(house, place):
    with pytest.raises(RunDirUnfit):
        Supervisor(place / ("deep" * 20), builds=house.binaries.ensure, owner=house.owner)


async def test_a_start_that_is_cancelled_leaves_a_postmaster_that_is_known(house, until):
    supervisor = house.supervisor()
    spec = house.spec()
    task = asyncio.create_task(supervisor.start(spec))
    await until(lambda: supervisor.status(spec.id).state == "running")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    pid = supervisor.status(spec.id).pid
    assert (await supervisor.start(spec)).pid == pid


async def test_users_settings_do_not_reach_the_platforms_sessions(project):
    """What a user attaches to a database would otherwise take the platform's rights away, or lead it astray."""
    async with await project.user() as connection:
        await connection.execute("CREATE ROLE weak")
        for setting in (
            "role = 'weak'",
            "default_transaction_read_only = on",
            "search_path = 'public'",
            "statement_timeout = 1",
        ):
            await connection.execute(f"ALTER DATABASE {project.database} SET {setting}")
    async with await project.supervisor.connect(project.spec.id, project.database) as connection:
        cursor = await connection.execute("SELECT current_user, current_setting('search_path'), pg_sleep(0.05)")
        assert (await cursor.fetchone())[:2] == ("cloud_admin", "pg_catalog")
        await connection.execute("CREATE TABLE public.written (a int)")


async def test_uvloop_serves_as_well(house, free_port, until):
    import uvloop

    def run() -> None:
        async def main() -> None:
            supervisor = house.supervisor()
            status = await supervisor.start(spec)
            assert await value(supervisor, spec.id, "SELECT 1") == 1
            os.kill(status.pid, signal.SIGKILL)
            await until(lambda: house.crashes)
            await supervisor.start(spec)
            await supervisor.stop(spec.id)
            await supervisor.close()
            house.supervisors.remove(supervisor)

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main())

    spec = house.spec(port=free_port)
    await asyncio.to_thread(run)


async def test_psycopg_reports_a_refused_login_by_its_reason(project):
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        await project.user(password="wrong")


async def test_what_users_may_set_is_known_to_some_major_and_nothing_fixed_is_unknown(house):
    """A misspelt name in the lists would never be noticed."""
    known: set[str] = set()
    for major in (14, 15, 16, 17, 18):
        build = house.binaries.ensure(major)
        running = await asyncio.create_subprocess_exec(
            *drop_prefix(house.owner),
            str(build.program("postgres")),
            "--describe-config",
            env=build.environment(),
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await running.communicate()
        known |= {line.split("\t")[0].lower() for line in out.decode().splitlines()}
    assert len(known) > 300
    assert known >= ALLOWED


async def test_without_tls_passwords_serve(house, make_project):
    """As with a build that has no OpenSSL."""
    project = await make_project(house.supervisor(tls=None))
    plain = {"sslmode": "disable", "channel_binding": "disable"}
    async with await project.user(**plain) as connection:
        assert not connection.pgconn.ssl_in_use
    for wrong in ({"password": "wrong"}, {"user": "cloud_admin"}):
        with pytest.raises(psycopg.OperationalError):
            await project.user(**plain, **wrong)
