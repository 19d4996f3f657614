"""Endpoints behind one port and a domain, told apart by what unmodified clients can say: by TLS, options, password."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Protocol

import pytest

from lamplighter.compute.binaries import Build
from support.front import free_port
from support.gateway_clients import Address, Client, Clients, Failed
from support.gateway_scene import WHO, WHO_BY_POOLER, Endpoint, Scene, make_scene
from support.lamp import Lamp, temporary_lamp

DOMAIN = "db.localtest.example"
HERE = "127.0.0.1"
# The driver of Java is Debian's, which only root can install.
JDBC = pytest.param("jdbc", marks=pytest.mark.root)
NAMES = ("psql", "psycopg", "psycopg-async", "asyncpg", "node-postgres", JDBC)
NOTHING_NAMED = "Endpoint ID is not specified. Either please upgrade the postgres client library"
NOT_FOUND = "The requested endpoint could not be found, or you don't have access to it"


@pytest.fixture(scope="module")
def clients(build17: Build, tmp_path_factory: pytest.TempPathFactory) -> Clients:
    return Clients(build17, tmp_path_factory.mktemp("home"))


class Cli(Protocol):
    """The fixture `neon`."""

    def run(self, *arguments: str, **env: str) -> Any: ...


@pytest.fixture(scope="module")
def lamp() -> Iterator[Lamp]:
    with temporary_lamp(options=("--domain", DOMAIN, "--domain-port", str(free_port()))) as platform:
        yield platform


@pytest.fixture(scope="module")
def scene(lamp: Lamp, clients: Clients) -> Scene:
    scene = make_scene(lamp)
    for endpoint, name in ((scene.left, "left"), (scene.right, "right")):
        address = replace(scene.address(endpoint), at=HERE)
        clients.psql(address, f"create table place as select '{name}' as name")
    return scene


def by_name(scene: Scene, endpoint: Endpoint) -> Address:
    """As the API tells it: by a host's name, that clients send in their TLS hello and verify."""
    return scene.address(endpoint, "verify-full", at=HERE)


def without_name(scene: Scene, endpoint: Endpoint, sslmode: str = "require") -> Address:
    """To the same port, without SNI: clients send none for an address."""
    return replace(scene.address(endpoint, sslmode), host=HERE)


def by_options(scene: Scene, endpoint: Endpoint, sslmode: str) -> Address:
    return replace(without_name(scene, endpoint, sslmode), options=f"endpoint={endpoint.id}")


def by_password(scene: Scene, endpoint: Endpoint) -> Address:
    address = without_name(scene, endpoint)
    return replace(address, password=f"endpoint={endpoint.id};{address.password}")


@pytest.mark.parametrize("name", NAMES)
def test_by_the_name_of_its_host(scene: Scene, clients: Clients, name: str):
    """The host's name leads to its endpoint, which is woken for it and vouches for that name."""
    client = clients.by_name[name]
    with scene.woken(scene.right):
        assert client(by_name(scene, scene.right), WHO) == "right,true"
    assert client(by_name(scene, scene.left), WHO) == "left,true"
    assert scene.right.uri.partition("@")[2].startswith(f"{scene.right.id}.{DOMAIN}:")


def test_channel_binding_holds_by_the_name(scene: Scene, clients: Clients):
    """TLS is Postgres's own: the string that the API gives, with what it insists on, works as it is."""
    assert scene.right.uri == scene.address(scene.right).uri(channel_binding="require")
    with scene.woken(scene.right):
        assert clients.psql(by_name(scene, scene.right), WHO, channel_binding="require") == "right,true"
    direct = {"sslnegotiation": "direct", "channel_binding": "require"}
    assert clients.psql(by_name(scene, scene.left), WHO, **direct) == "left,true"


@pytest.mark.parametrize("name", ["psql", "asyncpg", "node-postgres", JDBC])
def test_by_the_pooled_name(scene: Scene, clients: Clients, name: str):
    """`-pooler` behind the endpoint's id leads to its PgBouncer, by the name and by the option."""
    client = clients.by_name[name]
    address = scene.address(scene.right, "verify-full", pooled=True, at=HERE)
    assert address.host == f"{scene.right.id}-pooler.{DOMAIN}"
    with scene.woken(scene.right):
        assert client(address, WHO_BY_POOLER) == "right,false"
    option = replace(without_name(scene, scene.left), options=f"endpoint={scene.left.id}-pooler")
    assert client(option, WHO_BY_POOLER) == "left,false"


@pytest.mark.parametrize("sslmode", ["require", "verify-full"])
@pytest.mark.parametrize("pooled", [False, True])
def test_psql_of_neons_command_line_client(scene: Scene, neon: Cli, *, pooled: bool, sslmode: str):
    """`neon psql` wakes what sleeps by its name, and `--pooled` by the name of its pooler, that the client makes."""
    place = ["--project-id", scene.project_id, "--ssl", sslmode, *(["--pooled"] if pooled else [])]
    settings = {"PGHOSTADDR": HERE, "PGSSLROOTCERT": str(scene.authority)}
    query = WHO_BY_POOLER if pooled else WHO
    with scene.woken(scene.right):
        done = neon.run("psql", scene.right.branch, *place, "--", "-XAtq", "-c", query, **settings)
    assert done.status == 0, done.err
    assert done.out.strip() == f"right,{str(not pooled).lower()}"


@pytest.mark.parametrize("sslmode", ["disable", "require", "verify-full"])
@pytest.mark.parametrize("name", NAMES)
def test_by_an_option(scene: Scene, clients: Clients, name: str, sslmode: str):
    """`options=endpoint%3D...` leads clients without SNI to their endpoint, which is woken for them."""
    client = clients.by_name[name]
    with scene.woken(scene.right):
        assert client(by_options(scene, scene.right, sslmode), WHO).startswith("right,")
    assert client(by_options(scene, scene.left, sslmode), WHO).startswith("left,")


def test_other_options_are_postgres_s(scene: Scene, clients: Clients):
    """What stands beside the endpoint's name is for the session."""
    address = without_name(scene, scene.right)
    given = replace(address, options=f"-c work_mem=5MB endpoint={scene.right.id} -c statement_timeout=0")
    assert clients.psycopg(given, "select current_setting('work_mem')") == "5MB"


@pytest.mark.parametrize("name", NAMES)
def test_by_the_password(scene: Scene, clients: Clients, name: str):
    """`endpoint=...;` before the password leads there, within TLS."""
    client = clients.by_name[name]
    with scene.woken(scene.right):
        assert client(by_password(scene, scene.right), WHO).startswith("right,")
    assert client(by_password(scene, scene.left), WHO).startswith("left,")


@pytest.mark.parametrize("sslmode", ["disable", "require"])
@pytest.mark.parametrize("name", NAMES)
def test_neons_words_for_who_names_no_endpoint(scene: Scene, clients: Clients, name: str, sslmode: str):
    with pytest.raises(Failed, match=NOTHING_NAMED):
        clients.by_name[name](without_name(scene, scene.left, sslmode), WHO)


@pytest.mark.parametrize("name", NAMES)
def test_neons_words_for_an_endpoint_that_is_not_there(scene: Scene, clients: Clients, name: str):
    client: Client = clients.by_name[name]
    missing = replace(scene.left, id="ep-not-there-12345678")
    stranger = replace(by_name(scene, scene.left), host=f"{missing.id}.{DOMAIN}")
    for address in (stranger, by_options(scene, missing, "require"), by_password(scene, missing)):
        with pytest.raises(Failed, match=NOT_FOUND):
            client(address, WHO)


@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_password_is_refused_however_the_endpoint_is_named(scene: Scene, clients: Clients, name: str):
    ways = (by_name(scene, scene.left), by_options(scene, scene.left, "require"), by_password(scene, scene.left))
    for address in ways:
        with pytest.raises(Failed, match='password authentication failed for user "neondb_owner"'):
            clients.by_name[name](replace(address, password=address.password + "x"), WHO)


def test_a_name_of_another_domain_is_no_name_of_an_endpoint(scene: Scene, clients: Clients):
    stranger = replace(by_name(scene, scene.left), sslmode="require", host=f"{scene.left.id}.db.other.example")
    with pytest.raises(Failed, match=NOTHING_NAMED):
        clients.psycopg(stranger, WHO)
