"""Copies of a schema into another Postgres: complete, and without lending users the platform's rights."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from lamplighter.compute import schema as schemas
from lamplighter.compute.errors import ChangeFailed
from lamplighter.compute.ports import Changes, DatabaseSpec, RoleSpec

# What users wrote runs while a bound of a partition is restored; an immutable function may call a volatile one.
EVIL = (
    """CREATE FUNCTION public.evil2() RETURNS int LANGUAGE plpgsql VOLATILE AS $$
       BEGIN
         IF current_user <> 'app_owner' THEN
           BEGIN EXECUTE 'RESET SESSION AUTHORIZATION'; EXCEPTION WHEN OTHERS THEN NULL; END;
           BEGIN EXECUTE 'RESET ROLE'; EXCEPTION WHEN OTHERS THEN NULL; END;
           BEGIN EXECUTE 'ALTER ROLE app_owner SUPERUSER'; EXCEPTION WHEN OTHERS THEN NULL; END;
           BEGIN EXECUTE 'CREATE TABLE public.ran AS SELECT current_user::text AS as_whom, session_user::text AS s';
           EXCEPTION WHEN OTHERS THEN NULL; END;
         END IF;
         RETURN 0;
       END $$""",
    """CREATE FUNCTION public.evil(a int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
       $$ BEGIN RETURN public.evil2(); END $$""",
    "CREATE TABLE public.p (a int) PARTITION BY RANGE ((a + public.evil(1)))",
    "CREATE TABLE public.p1 PARTITION OF public.p FOR VALUES FROM (0) TO (10)",
)


@pytest.fixture
def pair(house, free_port):
    """A project of some major and an empty target for its schema."""

    async def make(major):
        supervisor = house.supervisor()
        source = house.spec(major=major, port=free_port)
        target = house.spec("ep-target", major=major)
        await asyncio.gather(supervisor.start(source), supervisor.start(target))
        roles = (RoleSpec("app_owner", "secret", new=True), RoleSpec("second", "secret2", new=True))
        databases = (
            DatabaseSpec("app", "app_owner", was="neondb", new=True),
            DatabaseSpec("other", "second", new=True),
        )
        await supervisor.apply(source.id, Changes(roles=roles, databases=databases))
        # As a platform does that stores no passwords.
        bare = tuple(RoleSpec(role.name, None, new=True) for role in roles)
        await supervisor.apply(target.id, Changes(roles=bare, databases=databases))
        return Pair(supervisor, source, target, free_port)

    return make


class Pair:
    def __init__(self, supervisor, source, target, port):
        self.supervisor, self.source, self.target, self.port = supervisor, source, target, port

    async def user(self, role="app_owner", password="secret", dbname="app"):
        return await psycopg.AsyncConnection.connect(
            host="127.0.0.1", port=self.port, user=role, password=password, dbname=dbname, autocommit=True
        )

    async def run(self, *statements, **values):
        async with await self.user(**values) as connection:
            for statement in statements:
                await connection.execute(statement)

    async def copy(self):
        await self.supervisor.copy_schema(self.source.id, self.target.id)

    async def ask(self, query, dbname="app", spec=None):
        async with await self.supervisor.connect((spec or self.target).id, dbname) as connection:
            cursor = await connection.execute(query)
            return await cursor.fetchall() if cursor.description else []


@pytest.mark.parametrize("major", [14, 17])
async def test_code_of_users_never_runs_as_a_superuser(pair, major):
    both = await pair(major)
    await both.run(*EVIL)
    await both.copy()
    assert await both.ask("SELECT rolsuper FROM pg_authid WHERE rolname = 'app_owner'") == [(False,)]
    # It did run, or nothing would be shown here, and not as one who may change roles.
    assert await both.ask("SELECT DISTINCT as_whom, s FROM public.ran") == [("cloud_copier", "cloud_copier")]
    for spec in (both.source, both.target):
        assert await both.ask("SELECT 1 FROM pg_roles WHERE rolname = 'cloud_copier'", spec=spec) == []
        superusers = "SELECT rolname FROM pg_roles WHERE rolsuper AND rolcanlogin"
        assert await both.ask(superusers, spec=spec) == [("cloud_admin",)]
    # What the code made on its way is not the platform's either.
    assert await both.ask("SELECT tableowner FROM pg_tables WHERE tablename = 'ran'") == [("app_owner",)]


NORMAL = (
    "CREATE ROLE reader LOGIN PASSWORD 'reader-secret'",
    "CREATE ROLE team",
    "GRANT team TO reader",
    "CREATE SCHEMA extensions",
    "CREATE EXTENSION pgcrypto SCHEMA extensions",
    "CREATE EXTENSION cube",
    "CREATE EXTENSION earthdistance",
    "CREATE EXTENSION postgres_fdw",
    'CREATE SCHEMA "odd ""s%{}"',
    "CREATE TYPE public.mood AS ENUM ('sad', 'happy')",
    "CREATE DOMAIN public.positive AS int CHECK (VALUE > 0)",
    "CREATE TYPE public.pair AS (a int, b text)",
    "CREATE TYPE public.span AS RANGE (subtype = int)",
    "CREATE SEQUENCE public.counter START 7",
    """CREATE TABLE public.person (id serial PRIMARY KEY, ident int GENERATED ALWAYS AS IDENTITY, mood public.mood,
       n public.positive, token text DEFAULT encode(extensions.gen_random_bytes(4), 'hex'), owner text)""",
    "CREATE TABLE public.pet (id int PRIMARY KEY, person int REFERENCES public.person ON DELETE CASCADE)",
    "CREATE TABLE public.log (at date, what text) PARTITION BY RANGE (at)",
    "CREATE TABLE public.log_1 PARTITION OF public.log FOR VALUES FROM ('2020-01-01') TO ('2021-01-01')",
    "CREATE VIEW public.happy AS SELECT id FROM public.person WHERE mood = 'happy'",
    "CREATE MATERIALIZED VIEW public.counted AS SELECT count(*) FROM public.person",
    "CREATE FUNCTION public.touch() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN RETURN NEW; END $$",
    "CREATE FUNCTION public.nothing() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE PROCEDURE public.act(a int, b text) LANGUAGE sql AS ''",
    "CREATE AGGREGATE public.total(int) (SFUNC = int4pl, STYPE = int)",
    "CREATE OPERATOR public.=== (LEFTARG = int, RIGHTARG = int, FUNCTION = int4eq)",
    "CREATE CAST (public.pair AS text) WITH INOUT",
    'CREATE COLLATION public.plain FROM "C"',
    "CREATE STATISTICS public.stats ON mood, n FROM public.person",
    "CREATE TEXT SEARCH CONFIGURATION public.plain_search (COPY = pg_catalog.english)",
    "CREATE TRIGGER touched BEFORE UPDATE ON public.person FOR EACH ROW EXECUTE FUNCTION public.touch()",
    "CREATE RULE quiet AS ON DELETE TO public.pet DO INSTEAD NOTHING",
    "CREATE INDEX lowered ON public.person (lower(owner))",
    "ALTER TABLE public.person ENABLE ROW LEVEL SECURITY",
    "CREATE POLICY own ON public.person FOR SELECT TO reader USING (owner = current_user)",
    'CREATE TABLE "odd ""s%{}"."t ""%s{}" (a int)',
    "COMMENT ON TABLE public.person IS 'people'",
    "COMMENT ON SCHEMA extensions IS 'apart'",
    "COMMENT ON EXTENSION pgcrypto IS 'mine'",
    "GRANT USAGE ON SCHEMA public TO team",
    "GRANT SELECT ON public.person TO team WITH GRANT OPTION",
    "GRANT SELECT (id) ON public.pet TO reader",
    "REVOKE EXECUTE ON FUNCTION public.nothing() FROM PUBLIC",
    "GRANT EXECUTE ON FUNCTION public.nothing() TO second",
    "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO team",
    "GRANT team TO app_owner",
    "SET ROLE team",
    # By another than the owner: pg_restore says SET SESSION AUTHORIZATION for it.
    "GRANT SELECT ON public.person TO second",
    "RESET ROLE",
    "GRANT CREATE ON SCHEMA public TO second",
    "CREATE SERVER away FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '192.0.2.1')",
    "CREATE USER MAPPING FOR app_owner SERVER away OPTIONS (user 'u', password 'p')",
    "CREATE FOREIGN TABLE public.far (a int) SERVER away",
    "CREATE PUBLICATION news FOR TABLE public.pet",
    "ALTER DATABASE app SET statement_timeout = '77s'",
    "ALTER DATABASE app SET default_transaction_read_only = on",
    "REVOKE CONNECT ON DATABASE app FROM PUBLIC",
    "GRANT CONNECT ON DATABASE app TO reader",
    "SET default_transaction_read_only = off",
    "INSERT INTO public.person (mood, n) VALUES ('happy', 1)",
)
SECONDS = (
    "SET default_transaction_read_only = off",
    "CREATE TABLE public.mine (id int)",
    "CREATE FUNCTION public.mine() RETURNS int LANGUAGE sql AS 'SELECT 2'",
)
OTHERS = ("CREATE TABLE public.elsewhere (a int)", "CREATE SCHEMA theirs")

COMPARED = {
    "relations": """SELECT n.nspname, c.relname, c.relkind, c.relacl::text, c.relrowsecurity,
        pg_get_userbyid(c.relowner), obj_description(c.oid, 'pg_class') FROM pg_class c
        JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname !~ '^(pg_|information_schema)'""",
    "columns": """SELECT a.attrelid::regclass::text, a.attname, format_type(a.atttypid, a.atttypmod), a.attacl::text,
        a.attidentity, pg_get_expr(d.adbin, d.adrelid) FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
        LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
        WHERE a.attnum > 0 AND c.relnamespace::regnamespace::text !~ '^(pg_|information_schema)'""",
    "functions": """SELECT p.oid::regprocedure::text, pg_get_userbyid(p.proowner), p.proacl::text, p.prosecdef
        FROM pg_proc p WHERE p.pronamespace::regnamespace::text !~ '^(pg_|information_schema)'""",
    "types": """SELECT t.oid::regtype::text, pg_get_userbyid(t.typowner), t.typtype FROM pg_type t
        WHERE t.typnamespace::regnamespace::text !~ '^(pg_|information_schema)'""",
    "schemas": """SELECT nspname, pg_get_userbyid(nspowner), nspacl::text, obj_description(oid, 'pg_namespace')
        FROM pg_namespace WHERE nspname !~ '^pg_'""",
    "constraints": "SELECT conname, conrelid::regclass::text, pg_get_constraintdef(oid) FROM pg_constraint",
    "triggers": "SELECT tgname, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal",
    "policies": "SELECT * FROM pg_policies",
    "rules": "SELECT tablename, rulename, definition FROM pg_rules WHERE schemaname = 'public'",
    "indexes": "SELECT indexdef FROM pg_indexes WHERE schemaname <> 'pg_catalog'",
    "extensions": """SELECT extname, extversion, extnamespace::regnamespace::text, pg_get_userbyid(extowner)
        FROM pg_extension""",
    "servers": "SELECT srvname, pg_get_userbyid(srvowner), srvoptions::text FROM pg_foreign_server",
    "mappings": "SELECT srvname, usename, umoptions::text FROM pg_user_mappings",
    "publications": "SELECT pubname, pg_get_userbyid(pubowner) FROM pg_publication",
    "published": "SELECT pubname, tablename FROM pg_publication_tables",
    "statistics": "SELECT stxname, pg_get_userbyid(stxowner) FROM pg_statistic_ext",
    "searches": "SELECT cfgname, pg_get_userbyid(cfgowner) FROM pg_ts_config",
    "collations": "SELECT collname, pg_get_userbyid(collowner) FROM pg_collation WHERE collnamespace > 16383",
    "operators": "SELECT oid::regoperator::text, pg_get_userbyid(oprowner) FROM pg_operator WHERE oid > 16383",
    "casts": "SELECT castsource::regtype::text, casttarget::regtype::text FROM pg_cast WHERE oid > 16383",
    "defaults": "SELECT pg_get_userbyid(defaclrole), defaclobjtype, defaclacl::text FROM pg_default_acl",
}
SHARED = {
    "databases": """SELECT datname, pg_get_userbyid(datdba), (SELECT array_agg(a::text ORDER BY a::text)
        FROM unnest(datacl) a) FROM pg_database WHERE datname IN ('app', 'other')""",
    "roles": "SELECT rolname, rolpassword, rolcanlogin, rolcreaterole, rolsuper FROM pg_authid",
    # From 16 on several may have granted the same.
    "members": """SELECT roleid::regrole::text, member::regrole::text, bool_or(admin_option) FROM pg_auth_members
        GROUP BY 1, 2""",
    "settings": "SELECT setdatabase = 0, setrole::regrole::text, setconfig::text FROM pg_db_role_setting",
}


def _sorted_acls(rows):
    """Privileges are a set: their order tells who was first."""
    return sorted(
        repr(
            tuple(
                sorted(value.strip("{}").split(",")) if isinstance(value, str) and value.startswith("{") else value
                for value in row
            )
        )
        for row in rows
    )


@pytest.mark.parametrize("major", [14, 15, 17, 18])
async def test_a_schema_arrives_complete(pair, major):
    both = await pair(major)
    await both.run(*NORMAL)
    await both.run(*SECONDS, role="second", password="secret2")
    # An owner who may make nothing there any more: only a superuser can give it what it owns.
    await both.run(*_later(major), "REVOKE CREATE ON SCHEMA public FROM second")
    await both.run(*OTHERS, role="second", password="secret2", dbname="other")
    await both.copy()
    for dbname in ("app", "other"):
        for what, query in COMPARED.items():
            wanted = _sorted_acls(await both.ask(query, dbname, both.source))
            assert _sorted_acls(await both.ask(query, dbname)) == wanted, what
    for what, query in SHARED.items():
        wanted = _sorted_acls(await both.ask(query, spec=both.source))
        assert _sorted_acls(await both.ask(query)) == wanted, what
    assert await both.ask("SELECT count(*) FROM public.person") == [(0,)]


def _later(major):
    statements = ["SET default_transaction_read_only = off"]
    # No package has it for 14.
    if major > 14:
        statements += [
            "CREATE EXTENSION vector",
            "CREATE TABLE public.item (id int, at vector(3))",
            "CREATE INDEX near ON public.item USING hnsw (at vector_l2_ops)",
        ]
    return statements


async def test_a_dropped_public_schema_stays_away_and_two_copies_share_a_source(pair, house):
    both = await pair(17)
    await both.run("DROP SCHEMA public", "CREATE SCHEMA app", "CREATE TABLE app.t (a int)")
    another = house.spec("ep-another")
    await both.supervisor.start(another)
    await asyncio.gather(both.copy(), both.supervisor.copy_schema(both.source.id, another.id))
    for spec in (both.target, another):
        schemas_there = await both.ask("SELECT nspname FROM pg_namespace WHERE nspname IN ('public', 'app')", spec=spec)
        assert schemas_there == [("app",)]
    assert await both.ask("SELECT 1 FROM pg_roles WHERE rolname = 'cloud_copier'", spec=both.source) == []


async def test_a_leftover_of_a_crash_is_used_and_removed(pair):
    both = await pair(17)
    await both.run("CREATE TABLE public.t (a int)")
    for spec in (both.source, both.target):
        await both.ask(
            "CREATE ROLE cloud_copier LOGIN; COMMENT ON ROLE cloud_copier IS"
            " 'Made by the platform for the copy of a schema'",
            spec=spec,
        )
    assert "cloud_copier" not in [each.name for each in await both.supervisor.list_roles(both.source.id)]
    await both.copy()
    assert await both.ask("SELECT 1 FROM pg_roles WHERE rolname = 'cloud_copier'") == []


async def test_a_role_of_users_with_the_copiers_name_is_not_touched(pair):
    both = await pair(17)
    await both.run("CREATE ROLE cloud_copier")
    with pytest.raises(ChangeFailed, match="made by SQL") as caught:
        await both.copy()
    assert caught.value.permanent
    assert await both.ask("SELECT rolcanlogin FROM pg_roles WHERE rolname = 'cloud_copier'", spec=both.source) == [
        (False,)
    ]


async def test_a_restore_that_fails_says_why_and_leaves_no_role(pair):
    """The function counts its callers: only the owner of the source gets through."""
    both = await pair(17)
    await both.run(
        "CREATE FUNCTION public.picky(a int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS"
        " $$ BEGIN IF current_user <> 'app_owner' THEN RAISE 'not for you'; END IF; RETURN a; END $$",
        "CREATE TABLE public.p (a int) PARTITION BY RANGE ((public.picky(1) + a))",
        "CREATE TABLE public.p1 PARTITION OF public.p FOR VALUES FROM (public.picky(1)) TO (10)",
        "CREATE TABLE public.q (a int CHECK (public.picky(1) = 1))",
        "CREATE VIEW public.v AS SELECT public.picky(1)",
    )
    with pytest.raises(ChangeFailed, match="not for you") as caught:
        await both.copy()
    assert caught.value.permanent
    for spec in (both.source, both.target):
        assert await both.ask("SELECT 1 FROM pg_roles WHERE rolname = 'cloud_copier'", "postgres", spec) == []


async def test_a_restore_that_takes_too_long_is_ended(pair, house):
    both = await pair(17)
    await both.run(
        "CREATE FUNCTION public.slow(a int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS"
        " $$ BEGIN IF current_user <> 'app_owner' THEN PERFORM pg_sleep(600); END IF; RETURN a; END $$",
        "CREATE TABLE public.p (a int) PARTITION BY RANGE ((public.slow(1) + a))",
    )
    ends = [
        schemas.End(lambda name, spec=spec: both.supervisor.connect(spec.id, name), *both.supervisor.socket(spec.id))
        for spec in (both.source, both.target)
    ]
    build, drop = house.binaries.ensure(17), both.supervisor._drop
    with pytest.raises(ChangeFailed, match="more than 3 seconds") as caught:
        await schemas.copy_schema(*ends, build, drop, seconds=3)
    assert caught.value.permanent
    # The backend that slept went with the role.
    assert await both.ask("SELECT 1 FROM pg_stat_activity WHERE query ~ 'slow' AND pid <> pg_backend_pid()") == []


async def test_roles_made_without_a_password_get_the_sources(pair):
    both = await pair(17)
    await both.copy()
    query = "SELECT rolname, rolpassword FROM pg_authid WHERE rolname IN ('app_owner', 'second') ORDER BY 1"
    copied = await both.ask(query)
    assert copied == await both.ask(query, spec=both.source)
    assert all(verifier for _, verifier in copied)
