"""Clients of Postgres, unmodified, wake an endpoint that sleeps and are served, each at the address of its own."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import pytest

from lamplighter.compute.binaries import Build
from lamplighter.compute.tls import ensure_tls
from support.gateway_clients import Clients, Failed
from support.gateway_scene import WHO, WHO_BY_POOLER, Scene, make_scene
from support.lamp import Lamp, sql, temporary_lamp

MODES = ("disable", "require", "verify-full")
NAMES = (
    "psql",
    "psycopg",
    "psycopg-async",
    "asyncpg",
    "node-postgres",
    # Its driver is Debian's, which only root can install.
    pytest.param("jdbc", marks=pytest.mark.root),
)


class Cli(Protocol):
    """The fixture `neon`."""

    def run(self, *arguments: str, **env: str) -> Any: ...


@pytest.fixture(scope="module")
def lamp() -> Iterator[Lamp]:
    """A platform for these tests alone: they put its endpoints to sleep."""
    with temporary_lamp() as platform:
        yield platform


@pytest.fixture(scope="module")
def scene(lamp: Lamp) -> Scene:
    scene = make_scene(lamp)
    for endpoint in (scene.left, scene.right):
        name = "left" if endpoint is scene.left else "right"
        sql(endpoint.uri, f"create table place as select '{name}' as name")
        sql(endpoint.uri, "create table visits (encrypted bool)")
    return scene


@pytest.fixture(scope="module")
def clients(build17: Build, tmp_path_factory: pytest.TempPathFactory) -> Clients:
    return Clients(build17, tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The certificate of an authority that nothing here is known by."""
    owner = (os.geteuid(), os.getegid())
    files = ensure_tls(tmp_path_factory.mktemp("stranger"), owner, (), now=dt.datetime.now(dt.UTC))
    assert files.authority is not None
    return files.authority


@pytest.mark.parametrize("sslmode", MODES)
@pytest.mark.parametrize("name", NAMES)
def test_a_client_wakes_what_sleeps(scene: Scene, clients: Clients, name: str, sslmode: str):
    """It is served by the endpoint that it came to, which it woke, and by TLS if it wanted that."""
    with scene.woken(scene.right):
        said = clients.by_name[name](scene.address(scene.right, sslmode), WHO)
    assert said == f"right,{str(sslmode != 'disable').lower()}"


@pytest.mark.parametrize("pooled", [False, True], ids=["direct", "pooled"])
@pytest.mark.parametrize("name", ["psql", "psycopg", "psycopg-async"])
def test_the_string_that_the_api_gives_holds_as_it_is(scene: Scene, clients: Clients, name: str, *, pooled: bool):
    """libpq insists on channel binding, as the string says, and gets it: from Postgres, or before the pooler."""
    address = scene.address(scene.right, pooled=pooled)
    assert scene.uri(scene.right, pooled=pooled) == address.uri(channel_binding="require")
    with scene.woken(scene.right):
        said = clients.of_libpq[name](address, WHO, channel_binding="require")
    assert said == f"right,{str(not pooled).lower()}"


def test_tls_without_asking_first(scene: Scene, clients: Clients):
    """A libpq that begins with TLS at once, as Postgres 17 allows, wakes what sleeps too."""
    address = scene.address(scene.right, "verify-full")
    with scene.woken(scene.right):
        assert clients.psql(address, WHO, sslnegotiation="direct", channel_binding="require") == "right,true"


@pytest.mark.parametrize("sslmode", MODES)
def test_pgbench_wakes_what_sleeps_once(scene: Scene, clients: Clients, tmp_path: Path, sslmode: str):
    """Four clients that come at once cause one start, and all that they do is done."""
    script = tmp_path / "visit.sql"
    script.write_text("insert into visits select ssl from pg_stat_ssl where pid = pg_backend_pid();\n")
    with scene.woken(scene.right):
        report = clients.pgbench(
            scene.address(scene.right, sslmode), "-n", "-c", "4", "-j", "2", "-t", "5", "-M", "prepared", "-f", script
        )
    assert "number of transactions actually processed: 20/20" in report
    visits = sql(scene.right.uri, "with gone as (delete from visits returning *) select encrypted from gone")
    assert visits == 20 * [(sslmode != "disable",)]


@pytest.mark.parametrize(("built_in", "sslmode"), [*((True, sslmode) for sslmode in MODES), (False, "require")])
def test_psql_of_neons_command_line_client(scene: Scene, neon: Cli, *, built_in: bool, sslmode: str):
    """`neon psql` wakes what sleeps, by the psql that it brings and by the one on the PATH."""
    settings = {"PGSSLROOTCERT": str(scene.authority)}
    if sslmode == "disable":
        settings["PGSSLMODE"] = sslmode
    ssl = "omit" if sslmode == "disable" else sslmode
    fallback = ["--fallback"] if built_in else []
    place = ["--project-id", scene.project_id, "--ssl", ssl, *fallback]
    with scene.woken(scene.right):
        done = neon.run("psql", scene.right.branch, *place, "--", "-XAtq", "-c", WHO, **settings)
    assert done.status == 0, done.err
    assert done.out.strip() == f"right,{str(sslmode != 'disable').lower()}"
    assert ("embedded psql" in done.err) == built_in


def test_pooled_psql_of_neons_command_line_client_is_direct(scene: Scene, neon: Cli):
    """It makes the pooled name itself, out of the endpoint's id in the host, which an address does not have."""
    place = ["--pooled", "--project-id", scene.project_id]
    with scene.woken(scene.right):
        done = neon.run("psql", scene.right.branch, *place, "--", "-XAtq", "-c", WHO)
    assert done.status == 0, done.err
    assert done.out.strip() == "right,true"


@pytest.mark.parametrize("name", ["psql", "psycopg", "asyncpg", "node-postgres", NAMES[-1]])
def test_who_verifies_notices_a_stranger(scene: Scene, clients: Clients, name: str, stranger: Path):
    """With another authority's certificate no client talks to it: verify-full is not passed over."""
    address = replace(scene.address(scene.left, "verify-full"), authority=stranger)
    with pytest.raises(Failed, match=r"(?i)certificat|trust|path"):
        clients.by_name[name](address, WHO)
    assert clients.by_name[name](scene.address(scene.left, "verify-full"), WHO) == "left,true"


@pytest.mark.parametrize("sslmode", MODES[:2])
@pytest.mark.parametrize("role", ["cloud_admin", "cloud_copier"])
def test_the_platforms_own_roles_do_not_come_in(scene: Scene, clients: Clients, role: str, sslmode: str):
    """Whoever comes by the gateway, with TLS or without, is not let in as the platform."""
    address = replace(scene.address(scene.left, sslmode), role=role)
    with pytest.raises(Failed, match=f'rejects connection for host "127.0.0.1", user "{role}"'):
        clients.psycopg(address, WHO)


# The pooled address


@pytest.mark.parametrize("sslmode", MODES)
@pytest.mark.parametrize("name", NAMES)
def test_a_client_wakes_what_sleeps_by_the_pooled_address(scene: Scene, clients: Clients, name: str, sslmode: str):
    """It is served by a session of PgBouncer's, which comes by the Unix socket."""
    address = scene.address(scene.right, sslmode, pooled=True)
    assert address.port != scene.address(scene.right).port
    with scene.woken(scene.right):
        said = clients.by_name[name](address, WHO_BY_POOLER)
    assert said == "right,false"


@pytest.mark.parametrize("sslmode", MODES)
def test_pgbench_by_the_pooled_address(scene: Scene, clients: Clients, tmp_path: Path, sslmode: str):
    """More clients than sessions: each transaction gets one."""
    script = tmp_path / "visit.sql"
    script.write_text("insert into visits select inet_server_addr() is null;\n")
    with scene.woken(scene.right):
        report = clients.pgbench(
            scene.address(scene.right, sslmode, pooled=True), "-n", "-c", "4", "-j", "2", "-t", "5", "-f", script
        )
    assert "number of transactions actually processed: 20/20" in report
    visits = sql(scene.right.uri, "with gone as (delete from visits returning *) select encrypted from gone")
    assert visits == 20 * [(True,)]
