"""HTTP at an endpoint's own port: who a caller is taken for, and when it is loaded."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from urllib.parse import quote

import httpx2
import pytest

from support.front import DATABASE, PASSWORD, ROLE
from support.waiting import eventually


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "X-Real-IP"])
async def test_a_callers_address_is_no_header(platform, header):
    """Programs of this host cannot say that they come from elsewhere."""
    endpoint = await platform.add("ep-http", tls=False, allowed=("203.0.113.7",))
    at = f"127.0.0.1:{endpoint.route.port}"
    said = {"X-Forwarded-For": "203.0.113.7", "Forwarded": "for=203.0.113.7", "X-Real-IP": "203.0.113.7"}[header]
    uri = f"postgresql://{ROLE}:{quote(PASSWORD)}@{at}/{DATABASE}"
    async with httpx2.AsyncClient(timeout=60) as client:
        headers = {"Neon-Connection-String": uri, header: said}
        refused = await client.post(f"http://{at}/sql", headers=headers, json={"query": "select 1"})
    assert "127.0.0.1 is not allowed to connect" in refused.text
    assert not platform.wakes


def test_a_gateway_listens_before_it_has_loaded_what_http_takes():
    """That would double the time for which ports refuse connections while a gateway starts."""
    program = "import sys, lamplighter.gateway.__main__ as main; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert {"psycopg", "uvicorn", "starlette", "websockets", "cryptography"}.isdisjoint(run.stdout.split())
    assert "lamplighter.gateway.front" in run.stdout.split()


async def test_why_a_wake_failed_is_told_by_http_as_to_a_stranger(platform):
    """The door does not see who asks. Its code is told, by which programs know to try again."""
    platform.answer_wakes = False
    endpoint = await platform.add("ep-http", tls=False)
    at = f"127.0.0.1:{endpoint.route.port}"
    uri = f"postgresql://{ROLE}:{quote(PASSWORD)}@{at}/{DATABASE}"
    async with httpx2.AsyncClient(timeout=60) as client:
        headers = {"Neon-Connection-String": uri}
        asking = asyncio.create_task(client.post(f"http://{at}/sql", headers=headers, json={"query": "select 1"}))
        await eventually(lambda: platform.wakes[endpoint.id])
        platform.fail(endpoint.id, "57P03", "the compute could not be started", "no such file: /srv/x", "see /srv/y")
        answer = (await asking).json()
    assert answer["code"] == "57P03"
    assert endpoint.id in answer["message"]
    assert "/srv" not in str(answer)
