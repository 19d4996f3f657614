"""A real PgBouncer beside a real Postgres: who gets in, what is shared, and how it lives and dies.

`LAMP_TEST_PGBOUNCER` names another PgBouncer than the system's, to try another version.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import os
import signal
import socket
import struct
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from structlog.testing import capture_logs

from lamplighter.compute import logs, pooler_files, process
from lamplighter.compute.pooler import PoolerPatience, Poolers
from lamplighter.compute.pooler_config import PREPARED_SINCE, QUIT_SINCE
from lamplighter.compute.pooler_errors import PoolerFailed, PoolerPortTaken
from lamplighter.compute.pooler_program import PoolerProgram, find_pooler
from lamplighter.compute.pooler_roles import Limits, read_digest
from lamplighter.compute.ports import Changes, RoleSpec
from lamplighter.compute.user import drop_prefix

Session = psycopg.AsyncConnection[tuple[Any, ...]]

#: Long enough that a test which passes has not been helped by it.
NEVER = 600.0


@pytest.fixture(scope="session")
def program() -> PoolerProgram:
    named = os.environ.get("LAMP_TEST_PGBOUNCER")
    return find_pooler(Path(named) if named else None)


@dataclass
class Pooled:
    """A project with a pooler beside its compute."""

    project: Any
    house: Any
    program: PoolerProgram
    port: int
    #: What was logged since the test began.
    logs: list[Any]
    made: list[Poolers] = field(default_factory=list)
    #: How often poolers have read all roles.
    reads: int = 0

    @property
    def id(self) -> str:
        return str(self.project.spec.id)

    @property
    def poolers(self) -> Poolers:
        return self.made[-1]

    def another(self, **settings: Any) -> Poolers:
        """As the next control plane would make it."""
        supervisor = self.project.supervisor
        values: dict[str, Any] = {
            "program": self.program,
            "owner": self.house.owner,
            "connect": self.connect,
            "running": lambda compute_id: supervisor.status(compute_id).state == "running",
            "patience": PoolerPatience(poll=NEVER, first_pause=0.01),
        }
        self.made.append(Poolers(self.house.run_dir, **(values | settings)))
        return self.made[-1]

    async def connect(self, compute_id: str, dbname: str) -> Session:
        session: Session = await self.project.supervisor.connect(compute_id, dbname)
        execute = session.execute

        async def counting(query: Any, *args: Any, **values: Any) -> Any:
            self.reads += b"LIMIT" in query if isinstance(query, bytes) else 0
            return await execute(query, *args, **values)

        session.execute = counting  # type: ignore[method-assign]
        return session

    async def start(self, poolers: Poolers | None = None, **values: Any) -> int:
        given = {"port": self.port, "socket": self.project.supervisor.socket(self.id), "cu": 0.25} | values
        status = await (poolers or self.poolers).start(self.id, **given)
        assert status.state == "running"
        assert status.pid is not None
        return status.pid

    async def user(self, **values: Any) -> Session:
        """A session by the pooler, as psycopg makes it when told of one: without prepared statements."""
        plain = {"port": self.port, "sslmode": "disable", "channel_binding": "disable"} | values
        session: Session = await self.project.user(**plain)
        session.prepare_threshold = None
        return session

    async def gets_in(self, **values: Any) -> None:
        async with await self.user(**values) as session:
            await session.execute("SELECT 1")

    async def refused(self, **values: Any) -> str:
        with pytest.raises(psycopg.OperationalError) as caught:
            await self.user(**values)
        return str(caught.value)

    async def admin(self, *statements: str) -> None:
        session = await self.project.supervisor.connect(self.id)
        async with session:
            for statement in statements:
                await session.execute(statement)

    @property
    def crashes(self) -> list[str]:
        """How it has crashed, by the log."""
        return [one["reason"] for one in self.logs if one["event"] == "pooler.crashed"]

    def processes(self) -> list[int]:
        return [pid for pids in pooler_files.running_below(self.house.run_dir).values() for pid in pids]

    @property
    def files(self) -> pooler_files.PoolerPlaces:
        return pooler_files.pooler_places(self.house.run_dir, self.id, None)


def some_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.fixture
async def pooled(project: Any, house: Any, program: PoolerProgram) -> AsyncIterator[Pooled]:
    with capture_logs() as logged:
        made = Pooled(project, house, program, some_port(), logged)
        made.another()
        try:
            yield made
        finally:
            for poolers in made.made:
                await poolers.close()
            assert process.kill_all(made.processes()) == []


def knock(port: int, user: str, database: str, password: str) -> bytes:
    """What a client gets after SCRAM with any password, an empty one too, which libpq would not send."""

    def message(kind: bytes, body: bytes) -> bytes:
        return kind + struct.pack("!I", len(body) + 4) + body

    startup = b"".join(part.encode() + b"\0" for part in ("user", user, "database", database)) + b"\0"
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        sock.sendall(message(b"", struct.pack("!I", 196608) + startup))
        if not sock.recv(4096).startswith(b"R"):
            return b"refused"
        bare = "n=,r=abcdefghijkl"
        first = f"n,,{bare}".encode()
        sock.sendall(message(b"p", b"SCRAM-SHA-256\0" + struct.pack("!I", len(first)) + first))
        answer = sock.recv(4096)
        if not answer.startswith(b"R"):
            return answer
        server_first = answer[9:].decode()
        parts = dict(part.split("=", 1) for part in server_first.split(","))
        salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(parts["s"]), int(parts["i"]))
        key = hmac.digest(salted, b"Client Key", "sha256")
        final = f"c=biws,r={parts['r']}"
        signed = f"{bare},{server_first},{final}".encode()
        signature = hmac.digest(hashlib.sha256(key).digest(), signed, "sha256")
        proof = base64.b64encode(bytes(a ^ b for a, b in zip(key, signature, strict=True))).decode()
        sock.sendall(message(b"p", f"{final},p={proof}".encode()))
        return sock.recv(4096)


def let_in(answer: bytes) -> bool:
    return answer.startswith(b"R") and b"SFATAL" not in answer


# What is shared


async def test_more_clients_than_postgres_takes_share_few_of_its_sessions(pooled: Pooled) -> None:
    await pooled.start()
    async with contextlib.AsyncExitStack() as stack:
        sessions = [await stack.enter_async_context(await pooled.user()) for _ in range(130)]
        most = await (await sessions[0].execute("SHOW max_connections")).fetchone()
        assert most is not None
        assert int(most[0]) < len(sessions)
        pids = set()
        for session in sessions:
            row = await (await session.execute("SELECT pg_backend_pid()")).fetchone()
            assert row is not None
            pids.add(row[0])
        assert len(pids) < 10
        # All at once they are served too, by as many as there may be.
        await asyncio.gather(*(session.execute("SELECT pg_sleep(0.01)") for session in sessions))


async def test_a_session_is_held_for_a_transaction_and_no_longer(pooled: Pooled) -> None:
    await pooled.start()
    async with await pooled.user() as one, await pooled.user() as other:
        await one.execute("PREPARE mine AS SELECT 1")
        await one.execute("EXECUTE mine")
        async with other.transaction():
            # It has taken the only one there was, with what the first had left in it.
            await other.execute("EXECUTE mine")
            with pytest.raises(psycopg.errors.InvalidSqlStatementName):
                await one.execute("EXECUTE mine")


async def test_prepared_statements_of_the_protocol_work_from_1_21_on(pooled: Pooled) -> None:
    await pooled.start()
    async with await pooled.user() as one, await pooled.user() as other:
        one.prepare_threshold = 0
        await one.execute("SELECT %s::int", (1,), prepare=True)
        async with other.transaction():
            await other.execute("SELECT 1")
            if pooled.program.version >= PREPARED_SINCE:
                await one.execute("SELECT %s::int", (2,), prepare=True)
            else:
                with pytest.raises(psycopg.errors.InvalidSqlStatementName):
                    await one.execute("SELECT %s::int", (2,), prepare=True)


async def test_a_cancel_request_reaches_the_right_query(pooled: Pooled, until: Any) -> None:
    await pooled.start()
    async with await pooled.user() as one, await pooled.user() as watcher:
        running = asyncio.create_task(one.execute("SELECT 'here', pg_sleep(60)"))

        async def sleeps() -> bool:
            query = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT ''here''%' AND state = 'active'"
            row = await (await watcher.execute(query.encode())).fetchone()
            return bool(row and row[0])

        await until(sleeps)
        await one.cancel_safe(timeout=10)
        with pytest.raises(psycopg.errors.QueryCanceled):
            await running


# Who gets in


async def test_the_right_password_gets_in_and_a_wrong_one_does_not(pooled: Pooled) -> None:
    await pooled.start()
    async with await pooled.user() as session:
        row = await (await session.execute("SELECT current_user, current_database()")).fetchone()
        assert row == ("app_owner", "app")
    assert "authentication failed" in await pooled.refused(password="wrong")
    assert "failed" in await pooled.refused(user="nobody")


async def test_a_changed_password_and_a_new_role_count_at_once_when_asked(pooled: Pooled) -> None:
    await pooled.start()
    async with await pooled.user() as session:
        await session.execute("CREATE ROLE by_sql LOGIN PASSWORD 'one'")
        assert await pooled.poolers.verifier(pooled.id, "by_sql") is not None
        await pooled.gets_in(user="by_sql", password="one")
        await session.execute("ALTER ROLE by_sql PASSWORD 'two'")
    await pooled.poolers.reload(pooled.id)
    assert "failed" in await pooled.refused(user="by_sql", password="one")
    async with await pooled.user(user="by_sql", password="two") as session:
        await session.execute("SELECT 1")
    assert await pooled.poolers.verifier(pooled.id, "nobody") is None


async def test_a_role_that_the_api_makes_gets_in(pooled: Pooled) -> None:
    await pooled.start()
    await pooled.project.supervisor.apply(pooled.id, Changes(roles=(RoleSpec("second", "its password"),)))
    await pooled.poolers.reload(pooled.id)
    await pooled.gets_in(user="second", password="its password")


async def test_what_sql_changes_counts_soon_without_being_asked(pooled: Pooled, until: Any) -> None:
    poolers = pooled.another(patience=PoolerPatience(poll=0.02))
    await pooled.start(poolers)
    async with await pooled.user() as session:
        await session.execute("CREATE ROLE by_sql LOGIN PASSWORD 'one'")

        async def gets_in() -> bool:
            return let_in(await asyncio.to_thread(knock, pooled.port, "by_sql", "app", "one"))

        async def stays_out() -> bool:
            return not await gets_in()

        await until(gets_in)
        # Another postmaster, another session to ask by; and the files are gone that lay beside those of the first.
        await pooled.project.supervisor.stop(pooled.id)
        await pooled.project.supervisor.start(pooled.project.spec)
    await until(pooled.files.record.exists)
    async with await pooled.user() as session:
        await session.execute("DROP ROLE by_sql")
    await until(stays_out)


async def test_nobody_becomes_the_platform(pooled: Pooled) -> None:
    await pooled.start()
    await pooled.admin("CREATE ROLE cloud_copier LOGIN")
    await pooled.poolers.reload(pooled.id)
    for role in ("cloud_admin", "cloud_copier"):
        for password in ("", role, "x"):
            for database in ("app", "postgres"):
                assert not let_in(await asyncio.to_thread(knock, pooled.port, role, database, password))
        assert "failed" in await pooled.refused(user=role, password="x")


async def test_not_even_with_a_password_of_its_own(pooled: Pooled) -> None:
    """On PostgreSQL before 16 whoever has CREATEROLE might give the copier one."""
    await pooled.admin("CREATE ROLE cloud_copier LOGIN PASSWORD 'known'", "ALTER ROLE cloud_admin PASSWORD 'known'")
    await pooled.start()
    for role in ("cloud_admin", "cloud_copier"):
        assert "failed" in await pooled.refused(user=role, password="known")


#: By role: what ends its time.
ENDS = {
    "dropped": "DROP ROLE dropped",
    "shut": "ALTER ROLE shut NOLOGIN",
    "bare": "ALTER ROLE bare PASSWORD NULL",
    "late": "ALTER ROLE late VALID UNTIL '2020-01-01'",
    "renamed": "ALTER ROLE renamed RENAME TO other",
}


async def test_who_may_not_log_in_any_more_stays_out_whatever_pgbouncer_has_open(pooled: Pooled) -> None:
    async def gets_in(role: str, password: str) -> bool:
        return let_in(await asyncio.to_thread(knock, pooled.port, role, "app", password))

    await pooled.admin(*(f"CREATE ROLE {role} LOGIN PASSWORD 'it'" for role in ENDS))
    await pooled.start()
    for role in ENDS:
        await pooled.gets_in(user=role, password="it")
        assert await gets_in(role, "it")
    await pooled.admin(*ENDS.values())
    await pooled.poolers.reload(pooled.id)
    assert [(role, password) for role in ENDS for password in ("it", "") if await gets_in(role, password)] == []
    # The next control plane knows too who was there once.
    await pooled.poolers.close()
    poolers = pooled.another()
    await poolers.adopt()
    await poolers.reload(pooled.id)
    assert [role for role in ENDS if await gets_in(role, "")] == []


NAMES = (
    'qu"ote',
    "line\nend",
    "ret\rurn",
    "; comment",
    "%include /etc/passwd",
    'x" "y',
    "back\\slash",
    "día☃",
    " ",
    "a" * 63,
)


async def test_any_name_that_postgres_takes_gets_in(pooled: Pooled) -> None:
    for name in NAMES:
        await pooled.admin(
            sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'it'").format(sql.Identifier(name)).as_string(None),
            sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)).as_string(None),
        )
    await pooled.start()
    for name in NAMES:
        async with await pooled.user(user=name, password="it", dbname=name) as session:
            assert await (await session.execute("SELECT current_user, current_database()")).fetchone() == (name, name)


async def test_a_database_owner_gains_nothing_by_what_is_done_for_the_pooler(pooled: Pooled) -> None:
    """Traps for whoever resolves names in their database, sprung by somebody else's login."""
    async with await pooled.project.user() as owner:
        for statement in (
            "CREATE SCHEMA trap",
            "CREATE TABLE trap.caught (who text)",
            "GRANT ALL ON trap.caught TO public",
            """CREATE FUNCTION trap.snap(name, text) RETURNS boolean LANGUAGE plpgsql SECURITY INVOKER AS
               $$BEGIN INSERT INTO trap.caught VALUES (current_user); RETURN true; END$$""",
            "CREATE OPERATOR trap.= (LEFTARG = name, RIGHTARG = text, FUNCTION = trap.snap)",
            """CREATE VIEW trap.pg_authid AS SELECT 'cloud_admin'::name AS rolname, 'x'::text AS rolpassword,
               true AS rolcanlogin, false AS rolsuper, NULL::timestamptz AS rolvaliduntil FROM trap.caught""",
            "ALTER DATABASE app SET search_path = trap, pg_catalog",
            "GRANT USAGE ON SCHEMA trap TO public",
        ):
            await owner.execute(statement.encode())
    await pooled.start()
    async with await pooled.user() as session:
        seen = await (
            await session.execute("SELECT DISTINCT usename FROM pg_stat_activity WHERE datname = 'app'")
        ).fetchall()
        # PgBouncer opens none of its own there, which would keep the owner from dropping the database, too.
        assert seen == [("app_owner",)]
        caught = await (await session.execute("SELECT * FROM trap.caught")).fetchall()
        assert caught == []


async def test_a_database_closed_to_the_public_works_for_those_who_may(pooled: Pooled) -> None:
    await pooled.admin(
        "CREATE ROLE stranger LOGIN PASSWORD 'it'",
        "REVOKE CONNECT ON DATABASE app FROM public",
    )
    await pooled.start()
    await pooled.gets_in()
    assert "permission denied for database" in await pooled.refused(user="stranger", password="it")


async def test_there_is_no_console_and_no_replication(pooled: Pooled) -> None:
    await pooled.admin("CREATE ROLE pgbouncer LOGIN REPLICATION PASSWORD 'it'")
    await pooled.start()
    for user, password in (("app_owner", pooled.project.password), ("pgbouncer", "it")):
        await pooled.refused(user=user, password=password, dbname="pgbouncer")
    await pooled.refused(dbname="template1")
    await pooled.refused(user="pgbouncer", password="it", replication="true")
    await pooled.gets_in(user="pgbouncer", password="it")


async def test_by_the_socket_everybody_needs_a_password_but_the_platform(pooled: Pooled) -> None:
    directory, port = pooled.project.supervisor.socket(pooled.id)
    await pooled.admin("ALTER ROLE cloud_admin PASSWORD 'known'")
    near = {"host": str(directory), "port": port, "sslmode": "disable", "channel_binding": "disable"}
    async with await pooled.project.user(**near) as session:
        assert await (await session.execute("SELECT current_user")).fetchone() == ("app_owner",)
    for values in ({"password": "wrong"}, {"dbname": "template1"}, {"replication": "true"}):
        with pytest.raises(psycopg.OperationalError):
            await pooled.project.user(**(near | values))


@pytest.mark.root
async def test_no_other_user_of_the_host_reaches_the_socket(pooled: Pooled) -> None:
    await pooled.start()
    directory, _ = pooled.project.supervisor.socket(pooled.id)
    command = [*drop_prefix((65534, 65534)), "/bin/ls", str(directory)]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
    assert "Permission denied" in done.stderr
    assert pooled.files.users.stat().st_mode & 0o007 == 0


# Very many roles


async def test_roles_are_read_only_when_one_has_changed(pooled: Pooled) -> None:
    await pooled.start()
    before = pooled.reads
    assert before > 0
    for _ in range(5):
        await pooled.poolers.reload(pooled.id)
        assert await pooled.poolers.verifier(pooled.id, "app_owner") is not None
        assert await pooled.poolers.verifier(pooled.id, "nobody") is None
    assert pooled.reads == before
    await pooled.admin("CREATE ROLE other LOGIN PASSWORD 'it'")
    await pooled.poolers.reload(pooled.id)
    assert pooled.reads == before + 1
    await pooled.gets_in(user="other", password="it")


async def test_the_digest_tells_each_change_and_no_others(pooled: Pooled) -> None:
    async with (
        await pooled.project.supervisor.connect(pooled.id) as session,
        await pooled.project.supervisor.connect(pooled.id) as other,
    ):
        seen = [await read_digest(session)]
        for statement in (
            "CREATE ROLE one LOGIN PASSWORD 'it'",
            "ALTER ROLE one PASSWORD 'that'",
            "ALTER ROLE one NOLOGIN",
            "ALTER ROLE one VALID UNTIL '2999-01-01'",
            "ALTER ROLE one RENAME TO two",
            "CREATE ROLE one",
            "DROP ROLE two",
        ):
            await other.execute(statement.encode())
            seen.append(await read_digest(session))
            assert await read_digest(session) == seen[-1]
        assert len(set(seen)) == len(seen)
        await other.execute("CREATE TABLE public.t (a int)")
        await other.execute("DROP TABLE public.t")
        async with other.transaction(force_rollback=True):
            await other.execute("CREATE ROLE three")
        assert await read_digest(session) == seen[-1]


async def test_a_role_whose_time_runs_out_is_locked_though_nobody_changed_it(pooled: Pooled, until: Any) -> None:
    await pooled.start(pooled.another(patience=PoolerPatience(poll=0.02)))
    await pooled.admin(
        "DO $$BEGIN EXECUTE format('CREATE ROLE brief LOGIN PASSWORD ''it'' VALID UNTIL %L', now() + '2 s'); END$$"
    )

    async def gets_in() -> bool:
        return let_in(await asyncio.to_thread(knock, pooled.port, "brief", "app", "it"))

    async def stays_out() -> bool:
        return not await gets_in()

    await until(gets_in)
    await until(stays_out)


async def test_roles_beyond_the_limit_stay_out_and_the_older_ones_are_followed(pooled: Pooled) -> None:
    poolers = pooled.another(limits=Limits(roles=3, at_once=0))
    await pooled.start(poolers)
    await pooled.admin(*(f"CREATE ROLE r{number} LOGIN PASSWORD 'it'" for number in range(2)))
    await poolers.reload(pooled.id)
    await pooled.gets_in(user="r1", password="it")
    await pooled.admin("CREATE ROLE r2 LOGIN PASSWORD 'it'")
    assert await poolers.verifier(pooled.id, "r2") is None
    assert "failed" in await pooled.refused(user="r2", password="it")
    await pooled.admin("ALTER ROLE r1 PASSWORD 'that'")
    await poolers.reload(pooled.id)
    await pooled.gets_in(user="r1", password="that")
    await pooled.admin("DROP ROLE r0")
    assert await poolers.verifier(pooled.id, "r2") is not None
    await pooled.gets_in(user="r2", password="it")
    assert not let_in(await asyncio.to_thread(knock, pooled.port, "r0", "app", ""))


async def test_when_too_many_are_gone_it_starts_afresh_without_them(pooled: Pooled, until: Any) -> None:
    poolers = pooled.another(limits=Limits(locked=10))
    pid = await pooled.start(poolers)
    names = [f"r{number}" for number in range(12)]
    await pooled.admin(*(f"CREATE ROLE {name} LOGIN PASSWORD 'it'" for name in names))
    await poolers.reload(pooled.id)
    await pooled.gets_in(user="r0", password="it")
    await pooled.admin(*(f"DROP ROLE {name}" for name in names))
    await poolers.reload(pooled.id)
    await until(lambda: poolers.status(pooled.id).pid not in (None, pid))
    assert '"r0"' not in pooled.files.users.read_text()
    assert [name for name in names if let_in(await asyncio.to_thread(knock, pooled.port, name, "app", ""))] == []
    await pooled.gets_in()
    assert len(pooled.processes()) == 1
    assert pooled.crashes == []
    # What it knows now is followed as before.
    await pooled.admin("CREATE ROLE later LOGIN PASSWORD 'it'")
    await poolers.reload(pooled.id)
    await pooled.gets_in(user="later", password="it")


async def test_a_stop_calls_off_a_fresh_start(pooled: Pooled) -> None:
    poolers = pooled.another(limits=Limits(locked=0))
    await pooled.start(poolers)
    await poolers.reload(pooled.id)
    await poolers.stop(pooled.id)
    assert pooled.processes() == []
    assert poolers.status(pooled.id).state == "stopped"


async def test_logins_that_come_together_have_all_roles_read_once(pooled: Pooled) -> None:
    await pooled.start()
    names = [f"r{number}" for number in range(5)]
    await pooled.admin(*(f"CREATE ROLE {name} LOGIN PASSWORD 'it'" for name in names))
    before = pooled.reads
    found = await asyncio.gather(*(pooled.poolers.verifier(pooled.id, name) for name in names))
    assert None not in found
    assert pooled.reads == before + 1


# Life and death


async def test_it_runs_apart_as_the_user_of_postgres_and_leaves_nothing(pooled: Pooled) -> None:
    pid = await pooled.start()
    assert os.getsid(pid) == pid
    assert f"Uid:\t{pooled.house.owner.uid}\t" in proc(pid, "status")
    async with await pooled.user() as session:
        await session.execute("SELECT 1")
        await pooled.poolers.stop(pooled.id)
        with pytest.raises(psycopg.OperationalError):
            await session.execute("SELECT 1")
    assert pooled.processes() == []
    assert not list(pooled.files.home.glob("pooler*"))
    assert pooled.poolers.status(pooled.id).state == "stopped"
    assert pooled.crashes == []
    with pytest.raises(PoolerFailed, match=f"PgBouncer of {pooled.id} does not run"):
        await pooled.poolers.verifier(pooled.id, "app_owner")
    await pooled.poolers.stop(pooled.id)
    assert await pooled.project.supervisor.connections(pooled.id) == 0


async def test_to_start_what_runs_changes_nothing_and_another_size_cuts_nobody(pooled: Pooled) -> None:
    pid = await pooled.start()
    async with await pooled.user() as session:
        assert await pooled.start() == pid
        assert await pooled.start(cu=1) == pid
        assert "default_pool_size = 405\n" in pooled.files.ini.read_text()
        await session.execute("SELECT 1")
    record = pooled_record(pooled)
    assert record.spec.cu == 1


async def test_another_port_is_another_process(pooled: Pooled) -> None:
    pid = await pooled.start()
    other = some_port()
    assert await pooled.start(port=other) != pid
    assert len(pooled.processes()) == 1
    await pooled.gets_in(port=other)


async def test_a_taken_port_is_said_and_nothing_stays(pooled: Pooled) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", pooled.port))
        sock.listen()
        with pytest.raises(PoolerPortTaken) as caught:
            await pooled.start()
    assert str(pooled.port) in str(caught.value)
    assert pooled.processes() == []
    assert pooled.poolers.status(pooled.id).state == "stopped"
    await pooled.start()


async def test_a_program_that_fails_is_said_with_its_words(pooled: Pooled, place: Path) -> None:
    broken = place / "pgbouncer"
    broken.write_text("#!/bin/sh\necho FATAL no luck today >&2\nexit 1\n")
    broken.chmod(0o755)
    poolers = pooled.another(program=PoolerProgram(broken, (1, 18, 0)))
    with pytest.raises(PoolerFailed, match=r"did not start: it ended with status 1\. It said:\nFATAL no luck today"):
        await pooled.start(poolers)
    assert not pooled.files.record.exists()


async def test_after_a_crash_it_runs_again(pooled: Pooled, until: Any) -> None:
    pid = await pooled.start()
    for _ in range(3):
        os.kill(pid, signal.SIGKILL)
        await until(lambda pid=pid: pooled.poolers.status(pooled.id).pid not in (None, pid))
        status = pooled.poolers.status(pooled.id)
        assert status.pid is not None
        pid = status.pid

        async def answers() -> bool:
            with contextlib.suppress(psycopg.OperationalError):
                await pooled.gets_in()
                return True
            return False

        await until(answers)
    assert pooled.crashes == ["was ended by SIGKILL"] * 3
    assert len(pooled.processes()) == 1
    await pooled.poolers.stop(pooled.id)
    assert pooled.processes() == []


async def test_without_its_compute_it_is_not_started_again(pooled: Pooled, until: Any) -> None:
    pid = await pooled.start()
    await pooled.poolers.close()
    runs = True
    poolers = pooled.another(running=lambda _id: runs)
    await poolers.adopt()
    runs = False
    os.kill(pid, signal.SIGKILL)
    await until(lambda: poolers.status(pooled.id).state == "crashed")
    assert pooled.crashes == ["was ended by SIGKILL"]
    await poolers.close()
    assert pooled.processes() == []


async def test_the_next_control_plane_takes_it_over_with_its_clients(pooled: Pooled, until: Any) -> None:
    pid = await pooled.start()
    async with await pooled.user() as session:
        await pooled.poolers.close()
        poolers = pooled.another()
        (status,) = await poolers.adopt()
        assert (status.state, status.pid, status.port) == ("running", pid, pooled.port)
        assert await pooled.start() == pid
        row = await (await session.execute("SELECT current_user")).fetchone()
        assert row == ("app_owner",)
        await session.execute("CREATE ROLE later LOGIN PASSWORD 'it'")
        await poolers.reload(pooled.id)
        await pooled.gets_in(user="later", password="it")
    os.kill(pid, signal.SIGKILL)
    await until(lambda: poolers.status(pooled.id).pid not in (None, pid))
    await poolers.stop(pooled.id)
    assert pooled.processes() == []


async def test_what_died_unwatched_is_started_by_the_next(pooled: Pooled, until: Any) -> None:
    pid = await pooled.start()
    await pooled.poolers.close()
    assert process.kill_all([pid]) == []
    poolers = pooled.another()
    await poolers.adopt()
    await until(lambda: poolers.status(pooled.id).state == "running")
    await pooled.gets_in()


async def test_one_that_was_cut_off_in_its_start_is_replaced(pooled: Pooled, until: Any) -> None:
    """A control plane that dies between spawning and noting the pid leaves a process and a record without it."""
    pid = await pooled.start()
    await pooled.poolers.close()
    record = pooled_record(pooled)
    pooler_files.save(replace(record, identity=None, up=False), pooled.files.record)
    poolers = pooled.another()
    await poolers.adopt()
    await until(lambda: poolers.status(pooled.id).state == "running")
    assert process.start_ticks(pid) is None
    assert len(pooled.processes()) == 1


async def test_none_outlives_its_compute_across_control_planes(pooled: Pooled) -> None:
    await pooled.start()
    await pooled.poolers.close()
    await pooled.project.supervisor.stop(pooled.id)
    # That took the record with it; the process is known by its arguments.
    assert len(pooled.processes()) == 1
    assert await pooled.another().adopt() == []
    assert pooled.processes() == []


async def test_it_survives_a_crash_of_its_postgres(pooled: Pooled, until: Callable[..., Awaitable[None]]) -> None:
    pid = await pooled.start()
    supervisor = pooled.project.supervisor
    status = supervisor.status(pooled.id)
    os.kill(status.pid, signal.SIGKILL)
    await until(lambda: supervisor.status(pooled.id).state == "crashed")
    await supervisor.start(pooled.project.spec)
    assert await pooled.start() == pid

    async def served() -> bool:
        with contextlib.suppress(psycopg.OperationalError):
            async with await pooled.user() as session:
                await session.execute("SELECT 1")
                return True
        return False

    await until(served)


async def test_forgetting_removes_its_log(pooled: Pooled, place: Path) -> None:
    (place / "log").mkdir()
    poolers = pooled.another(log_dir=place / "log")
    await pooled.start(poolers)
    log = place / "log" / f"{pooled.id}.pooler.log"
    assert "process up" in log.read_text()
    assert poolers.log_file(pooled.id) == log
    await poolers.stop(pooled.id)
    assert log.exists()
    await poolers.forget(pooled.id)
    assert not log.exists()


async def test_a_flood_of_wrong_passwords_does_not_fill_the_disk(pooled: Pooled, until: Any) -> None:
    await pooled.start(pooled.another(patience=PoolerPatience(poll=0.02)))
    with pooled.files.log.open("a") as log:
        log.write("ERROR password authentication failed\n" * (logs.LIMIT // 30))
    await until(lambda: pooled.files.log.stat().st_size < logs.LIMIT)
    assert not let_in(await asyncio.to_thread(knock, pooled.port, "app_owner", "app", "wrong"))


async def test_it_may_open_as_many_files_as_it_may_have_clients(pooled: Pooled) -> None:
    pid = await pooled.start()
    soft, hard = next(line for line in proc(pid, "limits").splitlines() if "open files" in line).split()[3:5]
    assert soft == hard


async def test_a_client_within_a_transaction_does_not_hold_up_a_stop(pooled: Pooled, place: Path) -> None:
    (place / "log").mkdir()
    poolers = pooled.another(log_dir=place / "log", patience=PoolerPatience(poll=NEVER, quick=60.0))
    pid = await pooled.start(poolers)
    session = await pooled.user()
    await session.execute("BEGIN")
    await poolers.stop(pooled.id)
    assert process.start_ticks(pid) is None
    await session.close()
    # By the signal that is the quick one in this version, and not by SIGKILL.
    quick = "SIGQUIT" if pooled.program.version >= QUIT_SINCE else "SIGTERM"
    assert f"got {quick}" in poolers.log_file(pooled.id).read_text()


def proc(pid: int, name: str) -> str:
    return Path(f"/proc/{pid}/{name}").read_text()


def pooled_record(pooled: Pooled) -> pooler_files.PoolerRecord:
    record = pooler_files.load(pooled.files.record)
    assert record is not None
    return record
