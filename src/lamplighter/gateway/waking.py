"""Those who wait for an endpoint to be awake: one request for all of them, each with a deadline of its own.

A request holds until the route is awake or the platform says that it failed. It is made again only to a new platform,
and when the endpoint falls asleep anew: the platform may have taken the former one for settled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from lamplighter.gateway import refusals
from lamplighter.gateway.admission import WAKES_A_MINUTE, WAKES_AT_ONCE, Wakes
from lamplighter.gateway.errors import Refused
from lamplighter.gateway.ports import Route, RouteState, WakeFailed


@dataclass(slots=True)
class _Waiting:
    """Before one endpoint. `asked`: the platform knows, or will as soon as there is one."""

    state: RouteState
    futures: set[asyncio.Future[None]] = field(default_factory=set)
    asked: bool = False


class Waker:
    """`ask(endpoint_id)` tells the platform; `connected()` is whether there is one."""

    def __init__(self, ask: Callable[[str], object], connected: Callable[[], bool], *, patience: float = 60.0) -> None:
        self._ask = ask
        self._connected = connected
        self._patience = patience
        self._waiting: dict[str, _Waiting] = {}
        self._wakes = Wakes()
        #: Endpoints whose wake is in somebody's account already.
        self._paid: set[str] = set()

    @property
    def waiting(self) -> int:
        """How many wait."""
        return sum(len(one.futures) for one in self._waiting.values())

    def admit(self, route: Route, payer: str | None) -> None:
        """Put the wake of this endpoint, if it sleeps, into the account of `payer`, the address of another host.

        It is paid for until something is told of it: whoever comes meanwhile comes along, as does whoever came before
        it fell asleep. Raises Refused.
        """
        if payer is None or route.state != "asleep" or route.endpoint_id in self._paid:
            return
        waiting = self._waiting.get(route.endpoint_id)
        if waiting is not None and waiting.asked:
            return
        if not self._wakes.take(payer, asyncio.get_running_loop().time()):
            raise Refused(refusals.too_many_wakes(WAKES_AT_ONCE, WAKES_A_MINUTE))
        self._paid.add(route.endpoint_id)

    async def changed(self, route: Route, *, until: float, payer: str | None = None) -> None:
        """Return when the endpoint's route was told anew, in a state in which it is worth a look.

        Asks for a wake unless it is held, which ends without that. An `awake` route that is given means: nothing
        listens there. `until` is in the loop's time, `payer` as for `admit`. Raises `Refused` when the wake failed, or
        nothing came in time.
        """
        self.admit(route, payer)
        endpoint_id = route.endpoint_id
        waiting = self._waiting.setdefault(endpoint_id, _Waiting(route.state))
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting.futures.add(future)
        if route.state != "holding" and not waiting.asked:
            waiting.asked = True
            self._ask(endpoint_id)
        try:
            async with asyncio.timeout_at(until):
                await future
        except TimeoutError:
            raise Refused(
                refusals.too_slow(self._patience) if self._connected() else refusals.no_control_plane()
            ) from None
        finally:
            waiting.futures.discard(future)
            if not waiting.futures and self._waiting.get(endpoint_id) is waiting:
                del self._waiting[endpoint_id]

    def deadline(self) -> float:
        """For who begins to wait now."""
        return asyncio.get_running_loop().time() + self._patience

    def told(self, route: Route) -> None:
        """A route was set."""
        self._paid.discard(route.endpoint_id)
        waiting = self._waiting.get(route.endpoint_id)
        if waiting is None:
            return
        before, waiting.state = waiting.state, route.state
        if route.state in ("awake", "disabled"):
            self._release(waiting)
        elif route.state == "asleep" and (before != "asleep" or not waiting.asked):
            waiting.asked = True
            self._ask(route.endpoint_id)

    def gone(self, endpoint_id: str) -> None:
        """The route is no more: who waits shall look, and find that."""
        self._paid.discard(endpoint_id)
        if waiting := self._waiting.get(endpoint_id):
            self._release(waiting)

    def failed(self, failure: WakeFailed) -> None:
        self._paid.discard(failure.endpoint_id)
        waiting = self._waiting.pop(failure.endpoint_id, None)
        if waiting is None:
            return
        for future in waiting.futures:
            if not future.done():
                future.set_exception(Refused(refusals.wake_failed(failure)))

    def again(self) -> None:
        """A new platform: it knows of no request."""
        for endpoint_id, waiting in self._waiting.items():
            if waiting.asked:
                self._ask(endpoint_id)

    def _release(self, waiting: _Waiting) -> None:
        waiting.asked = False
        for future in waiting.futures:
            if not future.done():
                future.set_result(None)
