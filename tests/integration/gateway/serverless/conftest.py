"""One Postgres for all tests of this folder, and the app in front of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest

from lamplighter.compute.binaries import Build
from support.serverless import Door, Postgres, running_postgres, served


@pytest.fixture(scope="session")
def server(postgres17: Build) -> Iterator[Postgres]:
    with running_postgres(postgres17) as running:
        yield running


@pytest.fixture(scope="module")
def door(server: Postgres) -> Iterator[Door]:
    with served(server) as running:
        yield running


@pytest.fixture
def http() -> Iterator[httpx2.Client]:
    with httpx2.Client(timeout=60) as client:
        yield client


Ask = Callable[..., httpx2.Response]


@pytest.fixture
def ask(door: Door, http: httpx2.Client) -> Ask:
    """`ask({...body...}, **headers)`: what the app answers; `uri` is another connection string."""

    def asking(body: Any, uri: str | None = None, **headers: str) -> httpx2.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return http.post(door.url, json=body, headers={"neon-connection-string": uri or door.uri(), **named})

    return asking
