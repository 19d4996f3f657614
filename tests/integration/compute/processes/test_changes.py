"""Roles and databases as the API makes them, in a real Postgres."""

from __future__ import annotations

import asyncio

import psycopg
import pytest
from psycopg import errors

from lamplighter.compute import sql
from lamplighter.compute.errors import ChangeFailed, ReservedName
from lamplighter.compute.ports import Changes, DatabaseSpec, RoleSpec


async def rows(project, query, dbname="postgres", parameters=None):
    async with await project.supervisor.connect(project.spec.id, dbname) as connection:
        return await (await connection.execute(query, parameters)).fetchall()


async def test_a_role_gets_what_neons_get(project):
    assert await rows(
        project,
        "SELECT rolcanlogin, rolinherit, rolcreatedb, rolcreaterole, rolbypassrls, rolreplication, rolsuper,"
        " pg_has_role(rolname, 'neon_superuser', 'member') FROM pg_roles WHERE rolname = 'app_owner'",
    ) == [(True, True, True, True, True, False, False, True)]
    assert await rows(project, "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'app'") == [
        ("app_owner",)
    ]
    assert [each.name for each in await project.supervisor.list_roles(project.spec.id)] == ["app_owner"]
    (database,) = await project.supervisor.list_databases(project.spec.id)
    assert (database.name, database.owner) == ("app", "app_owner")
    assert database.size_bytes > 1_000_000


async def test_replication_is_given_where_it_was_asked_for_and_taken_again(project):
    """A replication connection that names a database could otherwise copy the whole cluster."""

    async def attribute() -> list[tuple[bool]]:
        return await rows(project, "SELECT rolreplication FROM pg_roles WHERE rolname = 'app_owner'")

    for wanted in (True, False):
        await project.supervisor.apply(
            project.spec.id, Changes(roles=(RoleSpec("app_owner", None, replication=wanted),))
        )
        assert await attribute() == [(wanted,)]
    with pytest.raises(psycopg.OperationalError, match="permission denied to start WAL sender"):
        await project.user(replication="database")


async def test_applied_twice_is_the_same_as_once(project):
    changes = Changes(
        roles=(RoleSpec("app_owner", project.password), RoleSpec('odd "name', "p2")),
        databases=(DatabaseSpec("app", "app_owner", was="neondb"), DatabaseSpec('odd "db', 'odd "name')),
    )
    await project.supervisor.apply(project.spec.id, changes)
    before = await rows(project, "SELECT rolname, rolpassword FROM pg_authid ORDER BY 1")
    await project.supervisor.apply(project.spec.id, changes)
    assert await rows(project, "SELECT rolname, rolpassword FROM pg_authid ORDER BY 1") == before
    async with await project.user(user='odd "name', password="p2", dbname='odd "db') as connection:
        await connection.execute("CREATE TABLE public.t (a int)")


async def test_a_password_is_changed_and_none_leaves_it(project):
    spec_id = project.spec.id
    await project.supervisor.apply(spec_id, Changes(roles=(RoleSpec("app_owner", None),)))
    async with await project.user():
        pass
    await project.supervisor.apply(
        spec_id, Changes(roles=(RoleSpec("app_owner", "p\u00e4\u00dfw\u00f6rd\u2168\u00a0x"),))
    )
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        await project.user()
    # libpq prepares the password on its own; both must come to the same.
    async with await project.user(password="p\u00e4\u00dfw\u00f6rd\u2168\u00a0x"):
        pass
    assert "w\u00f6rd" not in project.supervisor.log_tail(spec_id)


async def test_a_database_is_renamed_under_its_users(project):
    async with await project.user() as connection:
        await connection.execute("CREATE TABLE public.t AS SELECT 7 AS a")
        await project.supervisor.apply(
            project.spec.id, Changes(databases=(DatabaseSpec("renamed", "app_owner", was="app"),))
        )
        with pytest.raises(psycopg.OperationalError):
            await connection.execute("SELECT 1")
    async with await project.user(dbname="renamed") as connection:
        assert await (await connection.execute("SELECT a FROM public.t")).fetchone() == (7,)


async def test_a_new_owner_rules_the_schema_public(project):
    changes = Changes(roles=(RoleSpec("second", "p2"),), databases=(DatabaseSpec("app", "second"),))
    await project.supervisor.apply(project.spec.id, changes)
    async with await project.user(user="second", password="p2") as connection:
        await connection.execute("DROP SCHEMA public")
        await connection.execute("CREATE SCHEMA public")


async def test_a_database_in_use_is_dropped(project):
    await project.supervisor.apply(project.spec.id, Changes(databases=(DatabaseSpec("second", "app_owner"),)))
    async with await project.user(dbname="second") as connection:
        await connection.execute("ALTER DATABASE second IS_TEMPLATE true")
        await connection.execute("CREATE TABLE public.t (a int)")
        await project.supervisor.apply(project.spec.id, Changes(drop_databases=("second", "never-was")))
        with pytest.raises(psycopg.OperationalError):
            await connection.execute("SELECT 1")
    assert [each.name for each in await project.supervisor.list_databases(project.spec.id)] == ["app"]


async def test_a_dropped_role_leaves_its_things_to_the_databases_owner(project):
    supervisor, spec_id = project.supervisor, project.spec.id
    await supervisor.apply(
        spec_id, Changes(roles=(RoleSpec("leaver", "p2"),), databases=(DatabaseSpec("own", "leaver"),))
    )
    async with await project.user(user="leaver", password="p2") as connection:
        await connection.execute("CREATE SCHEMA s")
        await connection.execute("CREATE TABLE s.t AS SELECT 1 AS a")
        await connection.execute("CREATE ROLE friend")
        await connection.execute("GRANT SELECT ON s.t TO friend")
        await connection.execute("ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO friend")
    async with await project.user(user="leaver", password="p2", dbname="own") as session:
        await session.execute("CREATE FUNCTION public.f() RETURNS int LANGUAGE sql SECURITY DEFINER RETURN 1")
        async with await project.user(user="leaver", password="p2") as connection:
            await connection.execute("ALTER DATABASE own ALLOW_CONNECTIONS false")
        await supervisor.apply(spec_id, Changes(drop_roles=("leaver", "never-was")))
        with pytest.raises(psycopg.OperationalError):
            await session.execute("SELECT 1")
    assert "leaver" not in [each.name for each in await supervisor.list_roles(spec_id)]
    assert await rows(project, "SELECT tableowner FROM pg_tables WHERE tablename = 't'", "app") == [("app_owner",)]
    # Never a superuser's: the function would run as one.
    owners = (
        "SELECT pg_get_userbyid(proowner) FROM pg_proc WHERE proname = 'f' AND pronamespace = 'public'::regnamespace"
    )
    assert await rows(project, owners, "own") == [("neon_superuser",)]
    assert await rows(project, "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'own'") == [
        ("neon_superuser",)
    ]


@pytest.mark.parametrize(
    "changes",
    [
        Changes(roles=(RoleSpec("cloud_admin", "mine"),)),
        Changes(roles=(RoleSpec("pg_boss", "mine"),)),
        Changes(drop_roles=("neon_superuser",)),
        Changes(databases=(DatabaseSpec("template1", "app_owner"),)),
        Changes(databases=(DatabaseSpec("mine", "app_owner", was="postgres"),)),
        Changes(drop_databases=("postgres",)),
    ],
)
async def test_what_is_the_platforms_is_refused(project, changes):
    with pytest.raises(ReservedName):
        await project.supervisor.apply(project.spec.id, changes)


async def test_an_owner_who_is_not_there_is_said_so_and_nothing_is_half_made(project):
    changes = Changes(
        roles=(RoleSpec("halfway", "p2"),), databases=(DatabaseSpec("app", "nobody"), DatabaseSpec("next", "halfway"))
    )
    with pytest.raises(ChangeFailed, match='role "nobody" does not exist') as caught:
        await project.supervisor.apply(project.spec.id, changes)
    assert caught.value.permanent
    assert "halfway" not in [each.name for each in await project.supervisor.list_roles(project.spec.id)]


async def test_a_renaming_leaves_alone_what_users_made_by_sql(project):
    async with await project.user() as connection:
        await connection.execute("CREATE DATABASE foo")
    with pytest.raises(ChangeFailed, match="exists already, made by SQL") as caught:
        await project.supervisor.apply(
            project.spec.id, Changes(databases=(DatabaseSpec("foo", "app_owner", was="app"),))
        )
    assert caught.value.permanent
    assert [each.name for each in await project.supervisor.list_databases(project.spec.id)] == ["app", "foo"]


async def test_what_is_new_is_made_twice_but_never_taken_from_users(project):
    changes = Changes(roles=(RoleSpec("fresh", "p1", new=True),), databases=(DatabaseSpec("made", "fresh", new=True),))
    await project.supervisor.apply(project.spec.id, changes)
    # The second attempt of a role whose password was set anew meanwhile.
    again = Changes(roles=(RoleSpec("fresh", "p2", new=True),), databases=changes.databases)
    await project.supervisor.apply(project.spec.id, again)
    async with await project.user(user="fresh", password="p2", dbname="made") as connection:
        await connection.execute("CREATE ROLE by_sql LOGIN PASSWORD 'known to its maker'")
        await connection.execute("CREATE DATABASE by_sql")
    for taken in (
        Changes(roles=(RoleSpec("by_sql", "p3", new=True),)),
        Changes(databases=(DatabaseSpec("by_sql", "app_owner", new=True),)),
    ):
        with pytest.raises(ChangeFailed, match="made by SQL") as caught:
            await project.supervisor.apply(project.spec.id, taken)
        assert caught.value.permanent


async def test_a_lock_of_users_ends_a_change_with_an_error_that_says_so(project):
    """What waits for users has a limit, and may pass."""
    async with await project.supervisor.connect(project.spec.id) as connection:
        bounded = sql.bounded(lambda name: project.supervisor.connect(project.spec.id, name))
        async with sql.session(bounded, "postgres") as limited:
            rows = await sql.fetch(
                limited, "SELECT current_setting('statement_timeout'), current_setting('lock_timeout')"
            )
            assert rows == [("2min", "30s")]
            await sql.fetch(limited, "SELECT set_config('lock_timeout', '50ms', false)")
            await connection.execute("SELECT pg_advisory_lock(7)")
            with pytest.raises(ChangeFailed, match="held a lock") as caught:
                await sql.fetch(limited, "SELECT pg_advisory_lock(7)")
            assert not caught.value.permanent


async def test_two_at_once_converge(project):
    changes = Changes(databases=(DatabaseSpec("same", "app_owner"),))
    await asyncio.gather(*(project.supervisor.apply(project.spec.id, changes) for _ in range(3)))
    assert [each.name for each in await project.supervisor.list_databases(project.spec.id)] == ["app", "same"]


async def test_passwords_of_failed_statements_are_not_logged(project):
    async with await project.user() as connection:
        with pytest.raises(errors.UndefinedObject):
            await connection.execute("ALTER ROLE nobody PASSWORD 'very-secret'")
    log = project.supervisor.log_tail(project.spec.id)
    assert "nobody" in log
    assert "very-secret" not in log


async def test_a_schema_is_copied_without_rows(project, house):
    supervisor = project.supervisor
    async with await project.user() as connection:
        for statement in (
            "CREATE ROLE reader LOGIN PASSWORD 'reader-secret'",
            "CREATE ROLE team",
            "GRANT team TO reader",
            "ALTER ROLE reader SET search_path = 'odd \"schema', public",
            "ALTER ROLE reader IN DATABASE app SET statement_timeout = '7s'",
            "CREATE EXTENSION pg_trgm",
            'CREATE SCHEMA "odd ""schema"',
            'CREATE TABLE "odd ""schema".t (a int PRIMARY KEY, b text DEFAULT $$x$$)',
            'CREATE INDEX ON "odd ""schema".t USING gin (b gin_trgm_ops)',
            'GRANT SELECT ON "odd ""schema".t TO team',
            'INSERT INTO "odd ""schema".t SELECT 1',
            "CREATE DATABASE second",
        ):
            await connection.execute(statement)
    target = house.spec("ep-target")
    await supervisor.start(target)
    await supervisor.apply(target.id, Changes(databases=(DatabaseSpec("app", "cloud_admin", was="neondb"),)))
    await supervisor.copy_schema(project.spec.id, target.id)
    assert [(each.name, each.owner) for each in await supervisor.list_databases(target.id)] == [
        ("app", "app_owner"),
        ("second", "app_owner"),
    ]
    async with await supervisor.connect(target.id, "app") as connection:

        async def one(query):
            return await (await connection.execute(query)).fetchone()

        assert await one('SELECT count(*) FROM "odd ""schema".t') == (0,)
        assert await one("""SELECT has_table_privilege('reader', '"odd ""schema".t', 'SELECT')""") == (True,)
        assert await one("""SELECT tableowner FROM pg_tables WHERE tablename = 't'""") == ("app_owner",)
        assert await one(
            "SELECT setconfig FROM pg_db_role_setting WHERE setrole = 'reader'::regrole AND setdatabase = 0"
        ) == (['search_path="odd ""schema", public'],)
    source_roles = await rows(project, "SELECT rolname, rolpassword FROM pg_authid ORDER BY 1")
    async with await supervisor.connect(target.id) as connection:
        cursor = await connection.execute("SELECT rolname, rolpassword FROM pg_authid ORDER BY 1")
        assert await cursor.fetchall() == source_roles
