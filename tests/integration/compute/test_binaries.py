"""Every major from the real registry, on a real postmaster."""

from __future__ import annotations

import datetime as dt
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from lamplighter.compute.binaries import MAJORS, Binaries, Build
from lamplighter.compute.extensions import ALLOWED_EXTENSIONS, extensions
from lamplighter.compute.providers.libpq import writes_key_logs
from lamplighter.compute.template import make_template
from lamplighter.compute.user import SystemUser

MEMBER = "CREATE ROLE tess LOGIN CREATEDB CREATEROLE REPLICATION BYPASSRLS IN ROLE neon_superuser"
Boot = Callable[..., AbstractContextManager[tuple[Build, Any]]]

#: Built into no wheel for this major.
WITHOUT_VECTOR = {14}


@pytest.fixture
def boot(binaries: Binaries, owner: SystemUser, session_place: Path, place: Path, run) -> Boot:
    """`boot(major, **settings)`: a build and its server on a fresh copy of its seed."""

    @contextmanager
    def booting(major: int, **settings: str) -> Iterator[tuple[Build, Any]]:
        build = binaries.ensure(major)
        seed = make_template(build, session_place / "seeds", owner=owner)
        with run(build, seed, place, **settings) as server:
            yield build, server

    return booting


@pytest.mark.parametrize("major", MAJORS)
def test_each_major_is_fetched_and_answers(major: int, boot) -> None:
    """A fetched build makes a seed whose postmaster tells the version that the build promised."""
    with boot(major) as (build, server), server.connect() as connection:
        version = connection.execute("select version()").fetchone()[0]
    assert version.startswith(f"PostgreSQL {build.version} ")
    assert build.major == major


@pytest.mark.parametrize("major", MAJORS)
def test_the_allow_list_and_nothing_else(major: int, boot) -> None:
    """A member of neon_superuser creates every extension of the allow-list that is there, and no other one."""
    refused: dict[str, str] = {}
    with boot(major) as (build, server):
        known = {extension.name: extension for extension in extensions(build)}
        with server.connect() as admin:
            admin.execute(MEMBER)
            names = {row[0] for row in admin.execute("select name from pg_available_extensions")}
        with server.connect("tess") as user:
            for name in sorted(names):
                try:
                    user.execute(f'CREATE EXTENSION IF NOT EXISTS "{name}" CASCADE')
                except psycopg.Error as error:
                    refused[name] = str(error)
    allowed = {name for name in ALLOWED_EXTENSIONS if known[name].available}
    assert names - set(refused) == allowed, refused
    assert {name for name in ALLOWED_EXTENSIONS if not known[name].available} == (
        {"vector"} if major in WITHOUT_VECTOR and "vector" not in names else set()
    )
    assert "file_fdw" in refused


@pytest.mark.parametrize("major", [major for major in MAJORS if major not in WITHOUT_VECTOR])
def test_vector_searches_by_an_hnsw_index(major: int, boot) -> None:
    """pgvector works on a build that it was not made with, the index included."""
    with boot(major) as (_build, server), server.connect() as admin:
        admin.execute(MEMBER)
        with server.connect("tess") as user:
            user.execute("CREATE EXTENSION vector")
        admin.execute("GRANT CREATE ON SCHEMA public TO tess")
        with server.connect("tess") as user:
            user.execute("CREATE TABLE items (id int, place vector(3))")
            user.execute("INSERT INTO items SELECT i, ARRAY[i, i, 0]::vector FROM generate_series(1, 500) i")
            user.execute("CREATE INDEX near ON items USING hnsw (place vector_l2_ops)")
            user.execute("SET enable_seqscan = off")
            query = "SELECT id FROM items ORDER BY place <-> '[42,42,0]' LIMIT 1"
            plan = "\n".join(row[0] for row in user.execute(f"EXPLAIN {query}"))
            found = user.execute(query).fetchone()[0]
    assert "near" in plan
    assert found == 42


def test_uuid_functions_are_those_of_the_standard(boot) -> None:
    """uuid-ossp gives the known values for names, and sound ones for times and chance, with or without its library."""
    with boot(17) as (_build, server), server.connect() as admin:
        admin.execute(MEMBER)
        with server.connect("tess") as user:
            user.execute('CREATE EXTENSION "uuid-ossp"')
            named = user.execute(
                "SELECT uuid_generate_v3(uuid_ns_dns(), 'www.example.com')::text,"
                " uuid_generate_v5(uuid_ns_dns(), 'www.example.com')::text, uuid_nil()::text"
            ).fetchone()
            many = user.execute(
                "SELECT count(DISTINCT u), bool_and(uuid_extract_version(u) = 1),"
                " bool_and(abs(extract(epoch FROM clock_timestamp() - uuid_extract_timestamp(u))) < 60)"
                " FROM (SELECT uuid_generate_v1() AS u FROM generate_series(1, 1000)) made"
            ).fetchone()
            version4 = user.execute("SELECT uuid_extract_version(uuid_generate_v4())").fetchone()[0]
            version1mc = user.execute(
                "SELECT get_byte(decode(right(uuid_generate_v1mc()::text, 12), 'hex'), 0) & 1"
            ).fetchone()[0]
    # the values of RFC 9562, appendix A, and of the examples in RFC 4122's errata
    assert named == (
        "5df41881-3aed-3515-88a7-2f4a814cf09e",
        "2ed6657d-e927-568b-95e1-2665a8aea6a2",
        "00000000-0000-0000-0000-000000000000",
    )
    assert many == (1000, True, True)
    assert version4 == 4
    assert version1mc == 1


def test_foreign_tables_reach_another_database_with_a_password_only(boot) -> None:
    """Through postgres_fdw and dblink a user cannot come back in as somebody whom the server asks for no password."""
    with boot(17) as (_build, server):
        with server.connect() as admin:
            admin.execute(MEMBER)
            admin.execute("GRANT CREATE ON SCHEMA public TO tess")
        with server.connect("tess") as user:
            user.execute("CREATE EXTENSION postgres_fdw")
            user.execute("CREATE EXTENSION dblink")
            user.execute(
                "CREATE SERVER back FOREIGN DATA WRAPPER postgres_fdw"
                f" OPTIONS (host '{server.socket_dir}', dbname 'neondb')"
            )
            user.execute("CREATE USER MAPPING FOR tess SERVER back OPTIONS (user 'cloud_admin', password 'guess')")
            user.execute(
                "CREATE FOREIGN TABLE authid (rolname name) SERVER back"
                " OPTIONS (schema_name 'pg_catalog', table_name 'pg_authid')"
            )
            with pytest.raises(psycopg.Error, match="password"):
                user.execute("SELECT * FROM authid")
            with pytest.raises(psycopg.Error, match="password"):
                user.execute(
                    "SELECT * FROM dblink(%s, 'select 1') AS t(a int)",
                    [f"host={server.socket_dir} user=cloud_admin dbname=neondb password=guess"],
                )


def certificate(directory: Path, owner: SystemUser) -> dict[str, str]:
    """Settings for TLS with a certificate made here."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    named = x509.CertificateBuilder().issuer_name(name).subject_name(name).public_key(key.public_key())
    dated = named.not_valid_before(now).not_valid_after(now + dt.timedelta(days=1))
    signed = dated.serial_number(x509.random_serial_number()).sign(key, hashes.SHA256())
    (directory / "cert").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (directory / "key").write_bytes(private)
    (directory / "key").chmod(0o600)
    os.chown(directory / "key", *owner)
    return {"ssl": "on", "ssl_cert_file": str(directory / "cert"), "ssl_key_file": str(directory / "key")}


def test_a_connection_string_writes_no_file(boot, owner: SystemUser, place: Path) -> None:
    """dblink with `sslkeylogfile` does not append to a file that the server's user may write (libpq 18 would)."""
    writable = place / "writable"
    writable.mkdir()
    os.chown(writable, *owner)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = str(taken.getsockname()[1])
    hba = "local all all trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n"
    settings = {"listen_addresses": "127.0.0.1", "port": port, "hba": hba, **certificate(place, owner)}
    target = f"host=127.0.0.1 port={port} user=tess password=known dbname=neondb sslmode=require"
    query = "SELECT * FROM dblink(%s, 'select 42') AS t(a int)"
    with boot(18, **settings) as (build, server):
        with server.connect() as admin:
            admin.execute(MEMBER + " PASSWORD 'known'")
        with server.connect("tess") as user:
            user.execute("CREATE EXTENSION dblink")
            assert user.execute(query, [target]).fetchone() == (42,)
            with pytest.raises(psycopg.Error):
                user.execute(query, [f"{target} sslkeylogfile={writable}/secrets"])
    assert list(writable.iterdir()) == []
    assert not writes_key_logs(build)


@pytest.mark.parametrize("major", MAJORS)
def test_no_member_reads_files_or_runs_programs(major: int, boot, place: Path) -> None:
    """Neither a member of neon_superuser nor a role that it makes comes near the host."""
    secret = place / "secret"
    secret.write_text("root only")
    attempts = (
        "GRANT pg_execute_server_program TO tess",
        "GRANT pg_read_server_files TO tess",
        "GRANT pg_write_server_files TO tess",
        "GRANT cloud_admin TO tess",
        "ALTER ROLE tess SUPERUSER",
        "ALTER ROLE cloud_admin PASSWORD 'mine'",
        "CREATE ROLE evil SUPERUSER",
        "CREATE ROLE evil IN ROLE pg_execute_server_program",
        "CREATE ROLE evil IN ROLE cloud_admin",
        f"COPY (SELECT 1) TO '{place}/written'",
        "COPY (SELECT 1) TO PROGRAM 'true'",
        f"SELECT pg_read_file('{secret}')",
        f"SELECT lo_import('{secret}')",
        "CREATE FUNCTION run(cstring) RETURNS int AS 'libc.so.6', 'system' LANGUAGE C STRICT",
        "LOAD '/tmp/evil.so'",
        "ALTER SYSTEM SET archive_command = 'true'",
        "SET ROLE cloud_admin",
        "SET SESSION AUTHORIZATION cloud_admin",
        "SET ROLE pg_execute_server_program",
    )
    allowed: list[str] = []
    with boot(major) as (_build, server):
        with server.connect() as admin:
            admin.execute(MEMBER)
        with server.connect("tess") as user:
            for attempt in attempts:
                try:
                    user.execute(attempt)
                except psycopg.Error:
                    continue
                allowed.append(attempt)
    assert allowed == []


def test_what_is_fetched_can_be_read_by_everybody(binaries: Binaries, postgres17) -> None:
    """Every file of a build in the cache is open to the user that Postgres runs as."""
    closed = [
        path
        for path in (postgres17.prefix, *postgres17.prefix.rglob("*"))
        if not path.stat().st_mode & 0o004 or (path.is_dir() and not path.stat().st_mode & 0o001)
    ]
    assert closed == []
    assert os.access(postgres17.program("postgres"), os.X_OK)
    assert binaries.find(17) == postgres17
