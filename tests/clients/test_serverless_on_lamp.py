"""Neon's serverless driver (npm `@neondatabase/serverless`), unmodified, on a whole platform whose endpoints sleep.

It is set up by what docs/serverless.md says, word for word: a snippet for each address.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from support.front import free_port
from support.gateway_scene import Endpoint, Scene, make_scene
from support.lamp import temporary_lamp
from support.npm import bundled_node, installed

HERE = Path(__file__).parent / "serverless"
PAGE = Path(__file__).parents[2] / "docs" / "serverless.md"
#: Where the page says that the API is.
API = "127.0.0.1:7432"
DOMAIN = "db.localtest.example"
RUN_SECONDS = 90


def snippets() -> dict[str, str]:
    """The page's programs, which are indented, by what each is for: settings for each address, and one that asks."""
    blocks = re.findall(r"(?:^    .*\n|^\n(?=    ))+", PAGE.read_text(), re.MULTILINE)
    programs = [re.sub(r"^    ", "", block, flags=re.MULTILINE) for block in blocks if "import {" in block]
    return dict(zip(("by TLS", "in the clear", "by the API", "asks"), programs, strict=True))


@dataclass(frozen=True)
class Driver:
    """A folder with the driver, and the environment of a program that uses it."""

    scene: Scene
    folder: Path

    def run(
        self, program: str, way: str, uri: str, *arguments: str, pipelined: bool = True, trusting: bool = True
    ) -> str:
        """What it prints. `trusting`: with what the page says of certificates."""
        settings = snippets()[way].replace(API, urlsplit(self.scene.lamp.url).netloc)
        settings += "" if pipelined else "neonConfig.pipelineConnect = false;\n"
        (self.folder / "settings.mjs").write_text(settings)
        done = subprocess.run(
            [bundled_node().program, self.folder / program, *arguments],
            env={
                "PATH": os.environ["PATH"],
                "DATABASE_URL": uri,
                "DOMAIN": DOMAIN,
                **({"NODE_EXTRA_CA_CERTS": str(self.scene.authority)} if trusting else {}),
            },
            check=False,
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def case(self, name: str, way: str, uri: str, *, pipelined: bool = True) -> Any:
        """What a function of on_lamp.mjs gives."""
        return json.loads(self.run("on_lamp.mjs", way, uri, name, pipelined=pipelined))


def driver_of(scene: Scene, folder: Path) -> Driver:
    modules = installed(HERE, name="serverless-tests", node=bundled_node())
    (folder / "node_modules").symlink_to(modules)
    for program in ("on_lamp.mjs", "resolving.mjs"):
        shutil.copy(HERE / program, folder)
    (folder / "asks.mjs").write_text(f'import "./resolving.mjs";\nimport "./settings.mjs";\n{snippets()["asks"]}')
    with psycopg.connect(scene.right.uri, hostaddr="127.0.0.1", autocommit=True) as connection:
        connection.execute("create table place as select 'right' as name")
    return Driver(scene, folder)


@pytest.fixture(scope="module")
def by_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    with temporary_lamp() as lamp:
        yield driver_of(make_scene(lamp), tmp_path_factory.mktemp("by-port"))


@pytest.fixture(scope="module")
def by_domain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    with temporary_lamp(options=("--domain", DOMAIN, "--domain-port", str(free_port()))) as lamp:
        yield driver_of(make_scene(lamp), tmp_path_factory.mktemp("by-domain"))


@pytest.fixture(params=["by_port", "by_domain"])
def driver(request: pytest.FixtureRequest) -> Driver:
    """One whose endpoints have a port each, or one name each."""
    found: Driver = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def sleeper(driver: Driver) -> Endpoint:
    return driver.scene.right


every_way = pytest.mark.parametrize("way", ["by TLS", "in the clear", "by the API"])


#: Who answers by the pooler is reached by a Unix socket there, and has no address.
HERE_IT_IS = {"name": "right", "direct": True}


@every_way
def test_the_page_s_program_runs(driver: Driver, sleeper: Endpoint, way: str):
    """By the settings for each address, and with an endpoint that sleeps."""
    with driver.scene.woken(sleeper):
        assert driver.run("asks.mjs", way, sleeper.uri) == "[ { one: 1 } ]\n[ { two: 2 } ]\n"


@every_way
def test_a_tagged_query_wakes(driver: Driver, sleeper: Endpoint, way: str):
    """Over HTTP: once; and again, though the gateway keeps the connection of the first one."""
    for _ in range(2):
        with driver.scene.woken(sleeper):
            assert driver.case("tagged", way, sleeper.uri) == [{**HERE_IT_IS, "list": [1, 2]}]


@every_way
def test_a_transaction_wakes(driver: Driver, sleeper: Endpoint, way: str):
    """With its options."""
    with driver.scene.woken(sleeper):
        said = driver.case("transaction", way, sleeper.uri)
    assert said == [[HERE_IT_IS], [{"level": "serializable", "ro": "on", "d": "on"}]]


@pytest.mark.parametrize("pipelined", [True, False])
@every_way
def test_a_pool_wakes(driver: Driver, sleeper: Endpoint, way: str, *, pipelined: bool):
    """Over WebSocket, where its sessions are whole."""
    with driver.scene.woken(sleeper):
        said = driver.case("pool", way, sleeper.uri, pipelined=pipelined)
    assert said["inside"] == [{**HERE_IT_IS, "sum": 3}]
    assert said["several"] == [{"name": "right", "n": n} for n in (1, 2, 3)]


@every_way
def test_a_pooled_string_leads_to_the_endpoint_itself(driver: Driver, sleeper: Endpoint, way: str):
    """By HTTP and by WebSocket."""
    uri = driver.scene.uri(sleeper, pooled=True)
    assert uri != sleeper.uri
    with driver.scene.woken(sleeper):
        assert driver.case("tagged", way, uri) == [{**HERE_IT_IS, "list": [1, 2]}]
        assert driver.case("pool", way, uri)["inside"] == [{**HERE_IT_IS, "sum": 3}]


def test_without_the_authority_the_driver_trusts_nobody(by_port: Driver):
    """What NODE_EXTRA_CA_CERTS is for."""
    uri = by_port.scene.right.uri
    with pytest.raises(AssertionError, match="certificate"):
        by_port.run("on_lamp.mjs", "by TLS", uri, "tagged", trusting=False)
