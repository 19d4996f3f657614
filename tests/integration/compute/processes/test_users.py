"""What a user of a compute may do, and what must be refused: the host is not theirs."""

from __future__ import annotations

import asyncio

import psycopg
import pytest
from psycopg import errors

from lamplighter.compute.ports import Changes, DatabaseSpec, RoleSpec

WITHOUT_TLS = {"sslmode": "disable", "channel_binding": "disable"}


async def test_login_by_tls_with_channel_binding(project):
    async with await project.user() as connection:
        cursor = await connection.execute(
            "SELECT ssl, version, current_user, current_database() FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
        )
        encrypted, version, user, database = await cursor.fetchone()
        assert encrypted
        assert version in {"TLSv1.2", "TLSv1.3"}
        assert (user, database) == (project.role, project.database)
        assert connection.info.encoding == "utf-8"


async def test_the_certificate_can_be_verified_in_full(project, tls):
    async with await project.user(sslmode="verify-full", sslrootcert=str(tls.authority)) as connection:
        assert connection.info.host == "127.0.0.1"


async def test_psql_logs_in_with_channel_binding(project, house):
    psql = house.binaries.ensure(17)
    running = await asyncio.create_subprocess_exec(
        str(psql.program("psql")),
        project.conninfo(),
        "-XAtc",
        "SELECT 6 * 7",
        env=psql.environment(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert await running.communicate() == (b"42\n", None)


@pytest.mark.parametrize(
    "values",
    [
        pytest.param({"user": "cloud_admin"}, id="superuser"),
        pytest.param({"user": "cloud_copier"}, id="copier"),
        pytest.param({"user": "cloud_admin", "dbname": "postgres", "replication": "true"}, id="superuser-replication"),
        pytest.param({"user": "cloud_admin", **WITHOUT_TLS}, id="superuser-without-tls"),
        pytest.param({"user": "cloud_copier", **WITHOUT_TLS}, id="copier-without-tls"),
        pytest.param({"replication": "true", **WITHOUT_TLS}, id="physical-replication-without-tls"),
        pytest.param({"dbname": "template1", **WITHOUT_TLS}, id="template1-without-tls"),
        pytest.param({"replication": "true"}, id="physical-replication"),
        pytest.param({"dbname": "template1"}, id="template1"),
    ],
)
async def test_these_are_refused_by_tcp(project, values):
    with pytest.raises(psycopg.OperationalError, match="pg_hba"):
        await project.user(**values)


async def test_users_of_this_host_may_do_without_tls_and_need_a_password(project):
    async with await project.user(**WITHOUT_TLS) as connection:
        cursor = await connection.execute("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
        assert await cursor.fetchone() == (False,)
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        await project.user(**WITHOUT_TLS, password="wrong")


async def test_other_hosts_are_refused_without_tls(project):
    """An address of the loopback network that no interface has stands for another host."""
    port = int(psycopg.conninfo.conninfo_to_dict(project.conninfo())["port"])
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=("127.0.0.2", 0))
    startup = b"\0\x03\0\0" + f"user\0{project.role}\0database\0{project.database}\0\0".encode()
    writer.write((len(startup) + 4).to_bytes(4, "big") + startup)
    said = await reader.read()
    writer.close()
    await writer.wait_closed()
    assert said.startswith(b"E")
    assert b'no pg_hba.conf entry for host "127.0.0.2"' in said
    assert b"no encryption" in said


async def test_users_need_a_password_on_the_unix_socket(project):
    directory, port = project.supervisor.socket(project.spec.id)
    near = {"host": str(directory), "port": port, "sslmode": "disable", "channel_binding": "disable"}
    async with await project.user(**near) as connection:
        assert await (await connection.execute("SELECT current_user")).fetchone() == (project.role,)
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        await project.user(**near, password="wrong")
    with pytest.raises(psycopg.OperationalError, match="pg_hba"):
        await project.user(**near, dbname="template1")


async def test_a_user_creates_roles_databases_schemas_and_extensions(project):
    async with await project.user() as connection:
        for statement in (
            "CREATE ROLE app_reader LOGIN PASSWORD 'reader-secret'",
            "CREATE ROLE app_group",
            "GRANT app_group TO app_reader",
            "GRANT app_group TO app_owner",
            "SET ROLE app_group",
            "RESET ROLE",
            "CREATE DATABASE second",
            "CREATE SCHEMA s",
            "CREATE TABLE s.t (a int PRIMARY KEY)",
            "CREATE TABLE public.t (a int)",
            "GRANT USAGE ON SCHEMA s TO app_reader",
            "GRANT pg_monitor TO app_reader",
            "ALTER ROLE app_reader SET statement_timeout = '5s'",
            "CREATE EXTENSION pg_stat_statements",
            "CREATE EXTENSION pg_trgm",
            "CREATE PUBLICATION p FOR TABLE s.t",
            "SELECT count(*) FROM pg_stat_statements",
            "DROP OWNED BY app_reader",
            "DROP ROLE app_reader",
        ):
            await connection.execute(statement)


FORBIDDEN = [
    "COPY (SELECT 1) TO PROGRAM 'cat'",
    "COPY public.t FROM PROGRAM 'echo 1'",
    "COPY public.t TO '/tmp/out'",
    "COPY public.t FROM '/etc/passwd'",
    "SELECT pg_read_file('/etc/passwd')",
    "SELECT pg_read_file('postgresql.auto.conf')",
    "SELECT pg_read_binary_file('/etc/passwd')",
    "SELECT pg_ls_dir('/')",
    "SELECT pg_stat_file('/etc/passwd')",
    "SELECT lo_import('/etc/passwd')",
    "SELECT lo_export(1, '/tmp/out')",
    "UPDATE pg_authid SET rolsuper = true WHERE rolname = 'app_owner'",
    "INSERT INTO pg_auth_members (roleid, member, grantor, admin_option) VALUES (10, 10, 10, true)",
    "UPDATE pg_proc SET prosrc = 'pg_read_file_all' WHERE proname = 'f'",
    "SELECT * FROM pg_hba_file_rules",
    "SELECT pg_reload_conf()",
    "CREATE EXTENSION file_fdw",
    "CREATE EXTENSION plpython3u",
    "CREATE LANGUAGE plpython3u",
    "CREATE FUNCTION f() RETURNS void LANGUAGE c AS '/lib/x86_64-linux-gnu/libc.so.6', 'system'",
    "LOAD 'dblink'",
    "ALTER SYSTEM SET work_mem = '1MB'",
    "SET session_preload_libraries = 'auto_explain'",
    "ALTER ROLE app_owner SET session_preload_libraries = 'auto_explain'",
    "SET dynamic_library_path = '/tmp'",
    "SET ROLE cloud_admin",
    "SET SESSION AUTHORIZATION cloud_admin",
    "ALTER ROLE cloud_admin PASSWORD 'mine'",
    "ALTER ROLE cloud_admin SET role = 'app_owner'",
    "ALTER ROLE cloud_admin NOLOGIN",
    "DROP ROLE cloud_admin",
    "GRANT cloud_admin TO app_owner",
    "ALTER ROLE app_owner SUPERUSER",
    "CREATE ROLE boss SUPERUSER",
    "GRANT pg_execute_server_program TO app_owner",
    "GRANT pg_read_server_files TO app_owner",
    "GRANT pg_write_server_files TO app_owner",
    "DROP ROLE neon_superuser",
    "REASSIGN OWNED BY cloud_admin TO app_owner",
    "DROP OWNED BY cloud_admin",
    "ALTER DATABASE postgres OWNER TO app_owner",
    "DROP DATABASE postgres",
    "DROP DATABASE template1",
    "CREATE TABLESPACE t LOCATION '/tmp'",
    "CREATE EVENT TRIGGER e ON ddl_command_end EXECUTE FUNCTION pg_catalog.suppress_redundant_updates_trigger()",
    "CREATE FOREIGN DATA WRAPPER w",
    "CREATE FUNCTION f() RETURNS int LANGUAGE internal AS 'pg_read_file_all'",
    "CREATE SUBSCRIPTION s CONNECTION 'host={sockets} user=cloud_admin dbname=app' PUBLICATION p",
    "SELECT pg_catalog.pg_switch_wal()",
    "SELECT pg_backup_start('x')",
]

DENIED = (
    errors.InsufficientPrivilege,
    errors.DependentObjectsStillExist,
    errors.InvalidGrantOperation,
    errors.FeatureNotSupported,
    errors.ObjectNotInPrerequisiteState,
    # Not in this build, or not in this major.
    errors.UndefinedFile,
    errors.UndefinedFunction,
    errors.lookup("2F003"),
)


@pytest.mark.parametrize("major", [14, 15, 16, 17, 18])
async def test_a_user_reaches_neither_the_host_nor_the_platform(house, free_port, major):
    supervisor = house.supervisor()
    spec = house.spec(major=major, port=free_port)
    await supervisor.start(spec)
    changes = Changes(
        roles=(RoleSpec("app_owner", "secret"),), databases=(DatabaseSpec("app", "app_owner", was="neondb"),)
    )
    await supervisor.apply(spec.id, changes)
    conninfo = psycopg.conninfo.make_conninfo(
        host="127.0.0.1", port=free_port, user="app_owner", password="secret", dbname="app", sslmode="require"
    )
    directory, _ = supervisor.socket(spec.id)
    let_through = []
    async with await psycopg.AsyncConnection.connect(conninfo, autocommit=True) as connection:
        await connection.execute("CREATE TABLE public.t (a text)")
        for statement in FORBIDDEN:
            try:
                await connection.execute(statement.replace("{sockets}", str(directory)))
            except DENIED:
                continue
            else:
                let_through.append(statement)
        assert let_through == []
    # The platform is still whom it was.
    async with await supervisor.connect(spec.id, "app") as connection:
        cursor = await connection.execute("SELECT rolsuper, rolpassword FROM pg_authid WHERE rolname = current_user")
        assert await cursor.fetchone() == (True, None)
        cursor = await connection.execute("SELECT count(*) FROM pg_auth_members WHERE member = 'app_owner'::regrole")
        assert (await cursor.fetchone())[0] == 1


@pytest.mark.parametrize("major", [14, 17, 18])
async def test_backends_do_not_lend_their_place_on_the_socket(house, free_port, major):
    """A backend runs as the user whom peer authentication takes for the superuser; its users must not."""
    supervisor = house.supervisor()
    spec = house.spec(major=major, port=free_port)
    await supervisor.start(spec)
    await supervisor.apply(
        spec.id,
        Changes(roles=(RoleSpec("app_owner", "secret"),), databases=(DatabaseSpec("app", "app_owner", was="neondb"),)),
    )
    directory, port = supervisor.socket(spec.id)
    conninfo = psycopg.conninfo.make_conninfo(
        host="127.0.0.1", port=free_port, user="app_owner", password="secret", dbname="app", sslmode="require"
    )
    target = f"host={directory} port={port} user=cloud_admin dbname=postgres"
    async with await psycopg.AsyncConnection.connect(conninfo, autocommit=True) as connection:
        await connection.execute("CREATE EXTENSION dblink")
        await connection.execute("CREATE EXTENSION postgres_fdw")
        for password in ("", " password=x"):
            with pytest.raises(errors.lookup("2F003"), match="password"):
                await connection.execute("SELECT * FROM dblink(%s, 'SELECT 1') AS t(a int)", (target + password,))
        for options in ("", ", password 'x'", ", password 'x', password_required 'false'"):
            await connection.execute("DROP SERVER IF EXISTS s CASCADE")
            await connection.execute(
                f"CREATE SERVER s FOREIGN DATA WRAPPER postgres_fdw"
                f" OPTIONS (host '{directory}', port '{port}', dbname 'postgres')"
            )
            attempt = (
                f"CREATE USER MAPPING FOR app_owner SERVER s OPTIONS (user 'cloud_admin'{options});"
                "CREATE FOREIGN TABLE r (rolname name) SERVER s OPTIONS (table_name 'pg_roles');"
                "SELECT * FROM r"
            )
            with pytest.raises(errors.Error, match="password"):
                await connection.execute(attempt)
