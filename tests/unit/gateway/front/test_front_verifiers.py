"""What is done when the platform cannot say what a password is proved against."""

from __future__ import annotations

import asyncio
import base64

import pytest

from lamplighter.gateway.errors import Refused
from lamplighter.gateway.verifiers import Verifiers
from lamplighter.gateway.wire.scram import parse_verifier

_KEY = base64.b64encode(bytes(32)).decode()
STORED = f"SCRAM-SHA-256$4096:{base64.b64encode(b'salt').decode()}${_KEY}:{_KEY}"
CHANGED = STORED.replace("4096", "8192")


class Platform:
    """Answers each question in the next turn of the loop: with `stored`, or that it cannot. Or it `stalls`."""

    def __init__(self) -> None:
        self.verifiers = Verifiers(self._asked, lambda: True, hurry=0.01)
        self.stored: str | None = STORED
        self.fails = False
        self.stalls = False
        self.asked: list[int] = []

    def _asked(self, number: int, _endpoint_id: str, _role: str) -> None:
        self.asked.append(number)
        loop = asyncio.get_running_loop()
        if self.stalls:
            return
        if self.fails:
            loop.call_soon(self.verifiers.failed, number)
        else:
            loop.call_soon(self.verifiers.answered, number, self.stored)


async def test_of_a_role_that_is_known_the_former_answer_serves():
    """The compute may have crashed this moment: who is let in wakes it, and is checked there, too."""
    platform = Platform()
    assert await platform.verifiers.of("ep-one", "owner") == parse_verifier(STORED)
    platform.fails = True
    assert await platform.verifiers.of("ep-one", "owner") == parse_verifier(STORED)


async def test_of_any_other_nobody_is_told_that_the_password_is_wrong():
    platform = Platform()
    platform.fails = True
    with pytest.raises(Refused) as caught:
        await platform.verifiers.of("ep-one", "owner")
    assert caught.value.refusal.code == "57P03"
    assert "Postgres does not answer" in caught.value.refusal.message


async def test_a_role_that_is_gone_is_not_remembered():
    platform = Platform()
    await platform.verifiers.of("ep-one", "owner")
    platform.stored = None
    assert await platform.verifiers.of("ep-one", "owner") is None
    platform.fails = True
    with pytest.raises(Refused):
        await platform.verifiers.of("ep-one", "owner")


async def test_while_the_platform_does_not_answer_the_former_answer_serves():
    """And what it answers in the end, the password being another one by then, serves the next login."""
    platform = Platform()
    await platform.verifiers.of("ep-one", "owner")
    platform.stalls = True
    assert await platform.verifiers.of("ep-one", "owner") == parse_verifier(STORED)
    platform.verifiers.answered(platform.asked[-1], CHANGED)
    assert await platform.verifiers.of("ep-one", "owner") == parse_verifier(CHANGED)
    platform.verifiers.failed(platform.asked[-1])
    platform.stalls, platform.stored = False, STORED
    assert await platform.verifiers.of("ep-one", "owner") == parse_verifier(STORED)


async def test_a_late_answer_is_for_nobody():
    platform = Platform()
    platform.verifiers.failed(7)
    platform.verifiers.answered(7, STORED)
