"""HTTP at an endpoint's own port: who a caller is taken for, and when it is loaded."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from urllib.parse import quote

import httpx2
import pytest
from websockets.asyncio.client import connect

from lamplighter.gateway.wire.startup import Startup, render_startup
from support.front import DATABASE, PASSWORD, ROLE
from support.waiting import eventually
from support.wire import PROTOCOL_3_0


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


#: The loop goes on while this is loaded, and the first client with TLS does not have to wait.
LOADING = """
import asyncio, sys
from lamplighter.gateway.web_later import WebLater

async def main():
    await WebLater(lambda: None).load()

asyncio.run(main())
print(*sys.modules)
"""


def test_what_tls_takes_is_loaded_with_http():
    run = subprocess.run([sys.executable, "-c", LOADING], capture_output=True, text=True, check=True, timeout=60)
    assert {"lamplighter.gateway.web", "cryptography.x509"} <= set(run.stdout.split())


#: Python's own way to say that a module is not to be found.
WITHOUT = """
import asyncio, sys
from lamplighter.gateway.certificates import Certificates
from lamplighter.gateway.ports import Listening
from lamplighter.gateway.web_later import WebLater

async def main():
    await WebLater(lambda: None).load()

sys.modules["cryptography"] = None
certificates = Certificates()
certificates.configure(Listening(certificate=sys.argv[1], key=sys.argv[2]))
assert certificates.current().binding is None
asyncio.run(main())
"""


def test_tls_goes_on_without_channel_binding(tls):
    """When what computes it was taken away from under a gateway that runs."""
    program = [sys.executable, "-c", WITHOUT, tls.certificate, tls.key]
    run = subprocess.run(program, capture_output=True, text=True, check=True, timeout=60)
    assert "gateway.no_channel_binding" in run.stdout


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


async def test_an_endpoints_port_leads_to_no_other(platform):
    """By HTTP as for Postgres: who was let as far as one endpoint does not reach the next, nor wake it."""
    one, other = await platform.add("ep-one", tls=False), await platform.add("ep-other", tls=False)
    at = f"127.0.0.1:{one.route.port}"
    uri = f"postgresql://{ROLE}:{quote(PASSWORD)}@{other.id}.example.org/{DATABASE}"
    async with httpx2.AsyncClient(timeout=60) as client:
        headers = {"Neon-Connection-String": uri}
        refused = await client.post(f"http://{at}/sql", headers=headers, json={"query": "select 1"})
        assert refused.status_code == 400
        assert f"names the endpoint '{other.id}'" in refused.json()["message"]
        own = await client.post(
            f"http://127.0.0.1:{other.route.port}/sql", headers=headers, json={"query": "select 42 as n"}
        )
        assert own.json()["rows"] == [{"n": 42}]
    assert set(platform.wakes) == {other.id}


async def test_an_endpoints_port_leads_to_no_other_by_websocket(platform):
    one, other = await platform.add("ep-one", tls=False), await platform.add("ep-other", tls=False)
    where = f"ws://127.0.0.1:{one.route.port}/v2?address={other.id}.example.org:5432"
    async with connect(where) as talking:
        await talking.send(render_startup(Startup(PROTOCOL_3_0, (("user", ROLE), ("database", DATABASE)))))
        said = await talking.recv()
    assert f"names the endpoint '{other.id}'".encode() in said
    assert not platform.wakes
