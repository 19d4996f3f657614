"""An HTTPS proxy for clients that have `https://console.neon.tech` built in, and cannot be told another address.

It ends their TLS by a certificate of that name, which the platform's own authority has signed and which only who was
told to accepts, and passes the bytes on to the API. It knows no other host and listens on loopback. Each step before
that has a deadline, and there is a bound on connections, so that nobody can make it hold more than some megabytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

import structlog

from lamplighter.compute.tls import Certificates, Signed
from lamplighter.gateway.errors import HandshakeFailed
from lamplighter.gateway.listeners import tune
from lamplighter.gateway.ports import Backend
from lamplighter.gateway.pumping import Pump
from lamplighter.gateway.streams import Stream, TlsStream, connect
from lamplighter.platform.console_request import BUSY, CONSOLE, GRANTED, TOO_LATE, UNREACHED, Refusal, judge

log = structlog.get_logger(__name__)

HTTP = "http/1.1"
_PAUSE_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Limits:
    """Connections at one time; seconds for a request's head, for TLS, and for the API to say something."""

    connections: int = 256
    head: float = 10.0
    handshake: float = 10.0
    silence: float = 300.0


class ConsoleProxy:
    """`renew`, then `start`. `listener` stays its maker's; `close` ends everything else."""

    def __init__(self, listener: socket.socket, certificates: Certificates, *, limits: Limits | None = None) -> None:
        self._listener = listener
        self._certificates = certificates
        self._limits = limits or Limits()
        self._signed: Signed | None = None
        self._context: ssl.SSLContext | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        #: Those for whom there is no room, and who are told so.
        self._turned_away: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """For HTTPS_PROXY."""
        host, port = self._listener.getsockname()[:2]
        return f"http://{host}:{port}"

    @property
    def authority(self) -> str:
        """The file of the certificate that clients are to trust. Known once there is one."""
        assert self._signed is not None
        return str(self._signed.authority)

    @property
    def connections(self) -> int:
        return len(self._tasks)

    async def renew(self) -> None:
        """See to it that the certificate lasts. Not while another thread is at the certificates. Raises OSError."""
        signed = await asyncio.to_thread(self._certificates.sign, (CONSOLE,), self._signed)
        if signed is not self._signed:
            context = await asyncio.to_thread(_context_of, signed)
            self._signed, self._context = signed, context

    def start(self, host: str, port: int) -> None:
        """Serve, with the API at this address: one that connections can be made to."""
        assert self._context is not None
        self._listener.setblocking(False)
        self._accepting = asyncio.create_task(self._accept(Backend(host, port, tls=False)), name="console proxy")

    async def close(self) -> None:
        tasks = [*([self._accepting] if self._accepting else []), *self._tasks, *self._turned_away]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self, api: Backend) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, _ = await loop.sock_accept(self._listener)
            except OSError as error:
                # No file descriptors are left, most likely: clients stay in the backlog.
                log.warning("console_proxy.accepting_paused", error=error.strerror)
                await asyncio.sleep(_PAUSE_SECONDS)
                continue
            sock.setblocking(False)
            tune(sock)
            if len(self._tasks) < self._limits.connections:
                self._begin(self._tasks, sock, self._serve(sock, api))
            elif len(self._turned_away) < self._limits.connections:
                self._begin(self._turned_away, sock, self._turn_away(sock))
            else:
                # Who has sent its request already may see a reset in place of this.
                with contextlib.suppress(OSError):
                    sock.send(BUSY.render())
                sock.close()

    def _begin(self, tasks: set[asyncio.Task[None]], sock: socket.socket, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        tasks.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            tasks.discard(task)
            # A task that is cancelled before it has begun never comes to its end.
            sock.close()

        task.add_done_callback(ended)

    async def _turn_away(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError, TimeoutError):
            await self._refuse(Stream(sock), BUSY)

    async def _serve(self, sock: socket.socket, api: Backend) -> None:
        client = Stream(sock)
        try:
            answer = await self._asked(client)
            server = await _reach(api) if answer is None else None
            if server is None:
                await self._refuse(client, answer or UNREACHED)
            else:
                await self._pass_on(client, server)
        except (HandshakeFailed, TimeoutError, ssl.SSLError, OSError) as error:
            log.debug("console_proxy.client_lost", error=repr(error))
        except Exception:
            log.exception("console_proxy.failed")

    async def _asked(self, client: Stream) -> Refusal | None:
        """Read the request. None grants it, with what is behind it left in the buffer."""
        try:
            async with asyncio.timeout(self._limits.head):
                while (verdict := judge(bytes(client.buffer))) is None:
                    await client.fill()
        except TimeoutError:
            return TOO_LATE
        if isinstance(verdict, Refusal):
            return verdict
        await client.exactly(verdict.length)
        return None

    async def _refuse(self, client: Stream, refusal: Refusal) -> None:
        async with asyncio.timeout(self._limits.handshake):
            await client.send(refusal.render())
        await client.linger()

    async def _pass_on(self, client: Stream, server: Stream) -> None:
        assert self._context is not None
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._limits.handshake):
                await client.send(GRANTED)
                inner = TlsStream(client, self._context, server_side=True)
                await inner.handshake()
            pump = Pump(inner, server)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._limits.silence) as limit:
                    pump.listen(lambda _said: limit.reschedule(loop.time() + self._limits.silence))
                    await pump.run()
        finally:
            server.close()


async def _reach(api: Backend) -> Stream | None:
    try:
        return Stream(await connect(api))
    except (OSError, TimeoutError):
        return None


def _context_of(signed: Signed) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols([HTTP])
    signed.serve(context)
    return context
