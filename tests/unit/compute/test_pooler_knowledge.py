"""What is asked for a pooler of a Postgres that does not answer."""

from __future__ import annotations

import asyncio

import pytest

from lamplighter.compute.pooler_config import Users
from lamplighter.compute.pooler_errors import PoolerFailed
from lamplighter.compute.pooler_knowledge import Knowledge
from lamplighter.compute.pooler_roles import Limits
from lamplighter.compute.sql import Connection


async def silence(_compute_id: str, _dbname: str) -> Connection:
    await asyncio.Event().wait()
    raise AssertionError("nobody sets it")


async def test_a_postgres_that_says_nothing_is_no_pooler_that_did_not_start() -> None:
    """What PgBouncer was told stays as it is."""
    knowledge = Knowledge("ep-one", connect=silence, limits=Limits(), answer=0.01, reread=1.0)
    knowledge.users = before = Users({"app_owner": "verifier"})
    why = r"^PgBouncer of ep-one cannot be told of roles: its Postgres did not say them within 0\.01 s\.$"
    with pytest.raises(PoolerFailed, match=why):
        await knowledge.refresh()
    with pytest.raises(PoolerFailed, match=why):
        await knowledge.verifier("app_owner")
    assert (knowledge.users, knowledge.told) == (before, True)
