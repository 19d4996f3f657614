"""Who a caller over HTTP is taken for, at an endpoint's own port."""

from __future__ import annotations

from urllib.parse import quote

import httpx2
import pytest

from support.front import DATABASE, PASSWORD, ROLE


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
