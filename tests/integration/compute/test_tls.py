"""The certificate as Postgres and its clients see it."""

from __future__ import annotations

import datetime as dt
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from lamplighter.compute.binaries import Build
from lamplighter.compute.tls import Certificates, OperatorPair, TlsFiles, hosts_of
from lamplighter.compute.user import SystemUser
from support.waiting import wait_for

PEM = serialization.Encoding.PEM
HBA = "local all all trust\nhostssl all all all scram-sha-256\n"


Serve = Callable[[TlsFiles], AbstractContextManager["Served"]]


@dataclass(frozen=True)
class Served:
    """A postmaster that takes passwords over TLS only; `admin` comes by its socket."""

    port: int
    admin: Callable[[], psycopg.Connection[tuple[Any, ...]]]


@pytest.fixture
def serve(run, postgres17: Build, seed17: Path, place: Path) -> Serve:
    @contextmanager
    def serving(files: TlsFiles) -> Iterator[Served]:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = int(free.getsockname()[1])
        tls = {"ssl": "on", "ssl_cert_file": str(files.certificate), "ssl_key_file": str(files.key)}
        with run(postgres17, seed17, place, hba=HBA, listen_addresses="127.0.0.1", port=str(port), **tls) as server:
            with server.connect() as admin:
                admin.execute("CREATE ROLE guest LOGIN PASSWORD 'pw'")
            yield Served(port, server.connect)

    return serving


def enter(port: int, host: str = "localhost", **more: str) -> psycopg.Connection[tuple[str, ...]]:
    """`host` is what the certificate must name; the connection goes to loopback."""
    where = {"host": host, "hostaddr": "127.0.0.1", "port": str(port)}
    return psycopg.connect(**where, user="guest", password="pw", dbname="neondb", channel_binding="require", **more)


def test_our_own_is_trusted_by_its_authority_for_every_host(serve: Serve, place: Path, owner: SystemUser) -> None:
    """With channel binding and full verification: loopback, and each endpoint of a domain."""
    files = Certificates(place / "tls", owner, hosts=hosts_of(domain="db.example.org")).open()
    trusted = {"sslmode": "verify-full", "sslrootcert": str(files.authority)}
    with serve(files) as served:
        for host in ("localhost", "127.0.0.1", "db.example.org", "ep-quiet-moon-12345678-pooler.db.example.org"):
            with enter(served.port, host, **trusted) as connection:
                assert connection.execute("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").fetchone()[0]
        with pytest.raises(psycopg.OperationalError, match="does not match host name"):
            enter(served.port, "a.b.db.example.org", **trusted)


def operators(place: Path) -> OperatorPair:
    """A self-signed pair of the operator's, another one each time."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=90))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA384())
    )
    pair = OperatorPair(place / "db.crt", place / "db.key")
    pair.certificate.write_bytes(made.public_bytes(PEM))
    pair.key.touch(0o600)
    pair.key.write_bytes(key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    return pair


def test_a_new_pair_of_the_operator_comes_in_without_a_restart(serve: Serve, place: Path, owner: SystemUser) -> None:
    """Who is connected stays; who comes after a SIGHUP meets the new certificate, and may bind to it."""
    pair = operators(place)
    tls = Certificates(place / "tls", owner, operator=pair)
    trusted = {"sslmode": "verify-full", "sslrootcert": str(pair.certificate)}
    with serve(tls.open()) as served, enter(served.port, **trusted) as early:
        operators(place)
        assert tls.refresh()
        with pytest.raises(psycopg.OperationalError, match="certificate verify failed"):
            enter(served.port, **trusted)
        with served.admin() as admin:
            admin.execute("SELECT pg_reload_conf()")

        def is_served() -> bool:
            try:
                enter(served.port, **trusted).close()
            except psycopg.OperationalError:
                return False
            return True

        wait_for(is_served, seconds=20, what="the new certificate")
        assert early.execute("SELECT 1").fetchone() == (1,)
        assert not tls.refresh()
