"""Bare HTTP clients on a scripted transport: what the transport does for any client, ours or not."""

from __future__ import annotations

from collections.abc import Iterator

import httpx2
import pytest

from lamplighter.testing import ScriptedTransport

BASE_URL = "https://console.example.test/api/v2"


@pytest.fixture
def script() -> ScriptedTransport:
    return ScriptedTransport()


@pytest.fixture
def http(script: ScriptedTransport) -> Iterator[httpx2.Client]:
    with httpx2.Client(transport=script, base_url=BASE_URL) as client:
        yield client
