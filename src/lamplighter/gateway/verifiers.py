"""Verifiers of roles, asked of the platform. While it is away, or does not answer, the last ones that it told serve.

They are never used while it answers: a password that was changed a moment ago must not be refused.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from lamplighter.gateway import refusals
from lamplighter.gateway.errors import Refused
from lamplighter.gateway.wire.errors import Malformed
from lamplighter.gateway.wire.scram import Verifier, parse_verifier

#: Roles that are remembered.
_MOST = 10_000
#: Seconds for an answer, and where there is an earlier one.
_PATIENCE = 10.0
_HURRY = 1.0


@dataclass(slots=True)
class _Asked:
    endpoint_id: str
    role: str
    answer: asyncio.Future[Verifier | None]


class Verifiers:
    """`ask(number, endpoint_id, role)` tells the platform; `connected()` is whether there is one.

    `hurry`: seconds after which an earlier answer serves.
    """

    def __init__(
        self, ask: Callable[[int, str, str], object], connected: Callable[[], bool], *, hurry: float = _HURRY
    ) -> None:
        self._ask = ask
        self._connected = connected
        self._hurry = hurry
        self._asked: dict[int, _Asked] = {}
        self._number = 0
        self._remembered: OrderedDict[tuple[str, str], Verifier] = OrderedDict()

    async def of(self, endpoint_id: str, role: str) -> Verifier | None:
        """None: there is no such role, or it has no password. Raises Refused when nobody can tell."""
        if not role.isprintable():
            # Half a character cannot be written as JSON.
            return None
        key = (endpoint_id, role)
        if not self._connected() and key in self._remembered:
            return self._remembered[key]
        self._number += 1
        number = self._number
        loop = asyncio.get_running_loop()
        asked = self._asked[number] = _Asked(endpoint_id, role, loop.create_future())
        # Not when this login gives up: an answer that comes too late for it is remembered for the next one.
        loop.call_later(_PATIENCE, self._asked.pop, number, None)
        self._ask(number, endpoint_id, role)
        try:
            async with asyncio.timeout(self._hurry if key in self._remembered else _PATIENCE):
                return await asked.answer
        except TimeoutError:
            if (known := self._remembered.get(key)) is not None:
                return known
            raise Refused(refusals.no_verifier("the control plane does not answer")) from None

    def answered(self, number: int, verifier: str | None) -> None:
        asked = self._asked.pop(number, None)
        if asked is None:
            return
        found = None
        if verifier is not None:
            try:
                found = parse_verifier(verifier)
            except Malformed:
                # A password that was stored in another way: it cannot be checked here, and so lets nobody in.
                found = None
        self._remember((asked.endpoint_id, asked.role), found)
        if not asked.answer.done():
            asked.answer.set_result(found)

    def failed(self, number: int) -> None:
        """The platform cannot tell: a compute that just crashed is asleep in a moment, and woken by who is let in."""
        asked = self._asked.pop(number, None)
        if asked is None or asked.answer.done():
            return
        if (known := self._remembered.get((asked.endpoint_id, asked.role))) is not None:
            asked.answer.set_result(known)
        else:
            asked.answer.set_exception(Refused(refusals.no_verifier("the endpoint's Postgres does not answer")))

    def _remember(self, key: tuple[str, str], verifier: Verifier | None) -> None:
        # Not names that are no role's: anybody can make up as many as they like.
        self._remembered.pop(key, None)
        if verifier is not None:
            self._remembered[key] = verifier
        if len(self._remembered) > _MOST:
            self._remembered.popitem(last=False)

    def again(self) -> None:
        """A new platform: it knows of no question."""
        for number, asked in self._asked.items():
            self._ask(number, asked.endpoint_id, asked.role)
