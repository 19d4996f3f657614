"""A real Postgres that asks for SCRAM, by its Unix socket and by TLS."""

from __future__ import annotations

import secrets
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from lamplighter.compute.tls import TlsFiles, ensure_tls
from lamplighter.gateway.binding import tls_server_end_point
from lamplighter.gateway.wire import startup
from support.wire import SECONDS, Wire


@dataclass(frozen=True)
class Database:
    """A postmaster; `cloud_admin` is trusted, everybody else is asked for SCRAM."""

    socket_dir: Path
    port: int
    tls: TlsFiles
    scratch: Path

    def admin(self) -> psycopg.Connection:
        return psycopg.connect(
            host=str(self.socket_dir), port=self.port, user="cloud_admin", dbname="neondb", autocommit=True
        )

    def role(self, name: str, password: str) -> str:
        """Make a role; its verifier as Postgres keeps it."""
        with self.admin() as connection:
            connection.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(name)))
            connection.execute(
                sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(name), sql.Literal(password))
            )
            row = connection.execute("SELECT rolpassword FROM pg_authid WHERE rolname = %s", (name,)).fetchone()
        assert row is not None
        return row[0]

    def local(self) -> Wire:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(self.socket_dir / f".s.PGSQL.{self.port}"))
        return Wire.over(sock)

    def encrypted(self) -> tuple[Wire, bytes]:
        """By TLS, and the binding of the server's certificate."""
        sock = socket.create_connection(("127.0.0.1", self.port), SECONDS)
        sock.sendall(startup.SSL_REQUEST)
        assert sock.recv(1) == b"S"
        context = ssl.create_default_context(cafile=str(self.tls.authority))
        wrapped = context.wrap_socket(sock, server_hostname="127.0.0.1")
        certificate = wrapped.getpeercert(binary_form=True)
        assert certificate is not None
        return Wire.over(wrapped), tls_server_end_point(certificate)


@pytest.fixture(scope="module")
def database(run, seed17, postgres17, session_place, owner) -> Iterator[Database]:
    place = session_place / "wire"
    place.mkdir(mode=0o755)
    tls = ensure_tls(place / "tls", owner)
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    settings = {
        "listen_addresses": "127.0.0.1",
        "port": str(port),
        "fsync": "off",
        "ssl": "on",
        "ssl_cert_file": str(tls.certificate),
        "ssl_key_file": str(tls.key),
        "hba": "local all cloud_admin trust\nlocal all all scram-sha-256\nhost all all all scram-sha-256\n",
    }
    with run(postgres17, seed17, place, **settings) as server:
        yield Database(server.socket_dir, port, tls, place)


@pytest.fixture
def nonce() -> str:
    return secrets.token_urlsafe(18)


@pytest.fixture
def tls_context(database: Database) -> ssl.SSLContext:
    """What a gateway would end TLS with: the very certificate of the computes."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    key = database.scratch / "gateway.key"
    key.write_bytes(database.tls.key.read_bytes())
    key.chmod(0o600)
    context.load_cert_chain(database.tls.certificate, key)
    return context
