"""The way past the relay: the kernel leads new connections straight to an awake Postgres. For `lamp up --redirect`.

Needs the program `nft` and the right to use it (root, or CAP_NET_ADMIN). The rules are in a table of the platform's own
and outlive it, as its computes do. Without the table, or without an element in it, connections reach the gateway: what
fails or is taken away here costs time, never a connection that is not established yet.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
from collections.abc import Coroutine, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import psutil
import structlog

from lamplighter.gateway.ports import Route
from lamplighter.platform import inspect
from lamplighter.platform import redirect_plan as plan
from lamplighter.platform.errors import RedirectFailed
from lamplighter.platform.redirect_plan import Counted, Element, Lead, Table

T = TypeVar("T")

log = structlog.get_logger(__name__)

_SBIN = "/usr/local/sbin:/usr/sbin:/sbin"
_SECONDS = 20.0
_PROBE_SECONDS = 3.0


# --- The program --------------------------------------------------------------------------------------------------


def find_program(name: str) -> str | None:
    """A program of the host, also where an ordinary user's PATH does not lead."""
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:{_SBIN}")


def _nft(*arguments: str, script: str | None = None) -> str:
    """Some 5 to 20 ms. A script is one transaction: all of it, or nothing. Raises RedirectFailed."""
    program = find_program("nft")
    if program is None:
        raise RedirectFailed("there is no program `nft`: install it (package nftables)")
    try:
        done = subprocess.run(
            [program, *arguments],
            input=script,
            stdin=subprocess.DEVNULL if script is None else None,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RedirectFailed(str(error)) from error
    if done.returncode != 0:
        raise RedirectFailed(_complaint(done.stderr))
    return done.stdout


def _complaint(stderr: str) -> str:
    """The first complaint; those that follow mostly come from it."""
    lines = [line for line in stderr.splitlines() if "Error" in line or "permitted" in line]
    return re.sub(r"^\S*: Error: ", "", lines[0]).strip() if lines else stderr.strip() or "nft failed without a word"


def _run(script: str) -> None:
    _nft("-f", "-", script=script)


def _list(*what: str) -> plan.Json:
    found: plan.Json = json.loads(_nft("-j", "list", *what))
    return found


def _exists(name: str) -> bool:
    try:
        _nft("list", "table", "inet", name)
    except RedirectFailed:
        # Who may not look cannot have made one.
        return False
    return True


# --- Whether it works here ----------------------------------------------------------------------------------------


def unavailable() -> str | None:
    """Why there can be no kernel redirect here; None when there can. Blocks, some 50 ms.

    A table is made, a connection is led by it over the loopback interface, and the table is removed again.
    """
    name = f"{plan.PREFIX}try_{secrets.token_hex(4)}"
    with ExitStack() as stack:
        public, private = (stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2))
        lead = Lead(public.getsockname()[1], private.getsockname()[1])
        try:
            _run(plan.layout(name, ("127.0.0.1",)) + plan.change(name, (), plan.elements_of([lead])))
        except RedirectFailed as error:
            return error.why
        try:
            client = stack.enter_context(socket.create_connection(public.getsockname(), timeout=_PROBE_SECONDS))
            private.settimeout(_PROBE_SECONDS)
            stack.enter_context(private.accept()[0])
            del client
        except OSError:
            return "the kernel takes the rules and does not follow them"
        finally:
            _run(plan.deletion(name))
    return None


# --- The platform's own -------------------------------------------------------------------------------------------


class Redirects:
    """The redirects of one platform. One at a time for each data directory.

    `addresses` are those that the gateway listens on. Led are clients of this host by IPv4: computes listen on
    127.0.0.1, where nobody of a network is led to. Raises ValueError for what is no address.

    Changes that come while nft runs go together in its next run. A table that somebody else has removed or changed is
    made anew by the next change, or by `counters`.
    """

    def __init__(self, data_dir: Path, addresses: Sequence[str] = ("127.0.0.1",)) -> None:
        self.name = plan.table_name(data_dir)
        self._layout = plan.layout(self.name, addresses, data_dir=data_dir)
        self._wanted: dict[str, Lead] = {}
        self._there: frozenset[Element] | None = None
        self._last: dict[int, Counted] = {}
        self._one_at_a_time = asyncio.Lock()
        self._running: set[asyncio.Task[object]] = set()

    async def probe(self) -> str | None:
        """Why there can be no redirect here; None when there can."""
        return await asyncio.to_thread(unavailable)

    async def set(self, route: Route) -> None:
        """What the route says holds for connections that begin after this has returned. Raises RedirectFailed.

        Lead past the gateway is only what is awake (and speaks TLS, and is not pooled): any other route has its
        connections go to the gateway again. Established ones stay as they are.
        """
        self._wanted[route.endpoint_id] = plan.lead_of(route)
        await self._settle()

    async def remove(self, endpoint_id: str) -> None:
        """Nothing of this endpoint is left but its established connections. Raises RedirectFailed."""
        # What could not be removed before is tried again.
        if self._wanted.pop(endpoint_id, None) is not None or self._there is None:
            await self._settle()

    async def replace_all(self, routes: Iterable[Route]) -> None:
        """These routes and no other ones, whatever there was. Makes the table; counters begin at zero.

        Raises RedirectFailed.
        """
        self._wanted = {route.endpoint_id: plan.lead_of(route) for route in routes}
        self._there = None
        await self._settle()

    async def withdraw(self) -> None:
        """All new connections go to the gateway; the table stays for those that it has led. Raises RedirectFailed.

        For a start without redirects on computes that have been adopted. Nothing happens where there is no table, or
        no `nft`.
        """
        self._wanted = {}
        await self._whole(self._withdraw())

    async def clear(self) -> None:
        """Remove the table, if there is one (and an `nft`). Raises RedirectFailed.

        The kernel then forgets established connections that it has led, and they break: first end the computes.
        """
        self._wanted = {}
        await self._whole(self._clear())

    async def counters(self) -> dict[str, Counted]:
        """By endpoint, what went past the gateway since the last call. Raises RedirectFailed."""
        return await self._whole(self._count())

    async def _settle(self) -> None:
        await self._whole(self._apply())

    async def _whole(self, work: Coroutine[Any, Any, T]) -> T:
        # nft cannot be called back: if the caller is cancelled, we must still learn what it did.
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._done)
        return await asyncio.shield(task)

    def _done(self, task: asyncio.Task[object]) -> None:
        self._running.discard(task)
        # Looked at, so that asyncio does not complain where the caller is gone: what failed is made anew next time.
        if not task.cancelled():
            task.exception()

    async def _apply(self) -> None:
        async with self._one_at_a_time:
            await self._bring_about()

    async def _bring_about(self) -> None:
        wanted = plan.elements_of(self._wanted.values())
        if self._there == wanted:
            return
        if self._there is not None:
            before, self._there = self._there, None
            try:
                await asyncio.to_thread(_run, plan.change(self.name, before, wanted))
            except RedirectFailed as error:
                log.warning("redirect.made_anew", table=self.name, error=error.why)
            else:
                self._there = wanted
                return
        await asyncio.to_thread(_run, self._layout + plan.change(self.name, (), wanted))
        self._there, self._last = wanted, {}

    async def _withdraw(self) -> None:
        async with self._one_at_a_time:
            self._there = None
            if await asyncio.to_thread(_exists, self.name):
                await asyncio.to_thread(_run, plan.withdrawal(self.name))

    async def _clear(self) -> None:
        async with self._one_at_a_time:
            self._there, self._last = None, {}
            if await asyncio.to_thread(_exists, self.name):
                await asyncio.to_thread(_run, plan.deletion(self.name))

    async def _count(self) -> dict[str, Counted]:
        async with self._one_at_a_time:
            try:
                now = plan.parse_counters(await asyncio.to_thread(_list, "table", "inet", self.name))
            except RedirectFailed:
                self._there = None
                await self._bring_about()
                return {}
            last, self._last = self._last, now
            owners = {lead.public: endpoint_id for endpoint_id, lead in self._wanted.items()}
            return {
                owners[port]: plan.since(last.get(port, Counted()), total)
                for port, total in now.items()
                if port in owners
            }


# --- What platforms that are no more have left --------------------------------------------------------------------


def leftover() -> list[Table]:
    """Tables of platforms that do not run, which lead nowhere. Blocks. None where nft cannot be had or used."""
    try:
        tables = plan.parse_tables(_list("ruleset", "inet"))
    except RedirectFailed:
        return []
    if not tables:
        return []
    listening = {
        one.laddr.port for one in psutil.net_connections("tcp") if one.status == psutil.CONN_LISTEN and one.laddr
    }
    return [table for table in tables if _is_dead(table, listening)]


def _is_dead(table: Table, listening: set[int]) -> bool:
    # A platform may be out of our sight (another container on the same network): then its Postgres answers for it.
    if any(port in listening for port in table.privates):
        return False
    if table.data_dir is None:
        return bool(table.privates)
    data_dir = Path(table.data_dir)
    return inspect.find_platform(data_dir).state == "stopped" and not any(
        one.alive for one in inspect.computes(data_dir)
    )


def repair(tables: Iterable[Table]) -> list[str]:
    """Remove them; the names of those that are gone. Blocks. Raises RedirectFailed."""
    gone = []
    for table in tables:
        _run(plan.deletion(table.name))
        gone.append(table.name)
    return gone
