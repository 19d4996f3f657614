"""What both drivers share: the HTTP client's settings, the header with the key, and what its errors mean."""

from __future__ import annotations

import random
import re
import ssl
import time
from collections.abc import Generator
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Final
from urllib.parse import urlsplit

import httpx2

from lamplighter import __version__
from lamplighter.api.secret import Secret
from lamplighter.client.call import Failure, Send, World
from lamplighter.client.config import Server

#: uvicorn closes a connection that was idle for 5 s. We have to be the first: a POST that meets a connection which was
#: just closed may or may not have arrived, and could not be sent again.
KEEPALIVE_SECONDS: Final = 4.0
CONNECTIONS: Final = 100

_BYTES: Final = re.compile(r"(bytearray\()?\bb(?:'.*'|\".*\")\)?", re.DOTALL)

#: Errors that come before the first byte was sent.
_UNSENT: Final = (
    httpx2.ConnectError,
    httpx2.ConnectTimeout,
    httpx2.PoolTimeout,
    httpx2.ProxyError,
    httpx2.UnsupportedProtocol,
    httpx2.InvalidURL,
    httpx2.LocalProtocolError,
)
#: Errors that would come again: the request is none.
_LASTING: Final = (httpx2.UnsupportedProtocol, httpx2.InvalidURL, httpx2.LocalProtocolError)
#: All that a request may end with.
ERRORS: Final = (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError)


class Bearer(httpx2.Auth):
    """Puts the key on a request at the last moment."""

    def __init__(self, key: Secret) -> None:
        self._key = key

    def auth_flow(self, request: httpx2.Request) -> Generator[httpx2.Request, httpx2.Response, None]:
        request.headers["Authorization"] = f"Bearer {self._key.reveal()}"
        yield request


def settings(server: Server) -> dict[str, Any]:
    """The arguments of the HTTP client."""
    secure = server.base_url.startswith("https:")
    return {
        "headers": {"Accept": "application/json", "User-Agent": f"lamplighter/{__version__}"},
        "auth": Bearer(server.api_key),
        "follow_redirects": False,
        # A session that a server starts would belong to whoever asked first.
        "cookies": CookieJar(policy=DefaultCookiePolicy(allowed_domains=[])),
        # Reading the list of authorities takes tens of milliseconds.
        "verify": secure,
        # A proxy cannot reach the server on this machine, and would be sent its key.
        "mounts": {f"all://{urlsplit(server.base_url).netloc}": None} if is_local(server.base_url) else None,
        "limits": httpx2.Limits(
            max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS, keepalive_expiry=KEEPALIVE_SECONDS
        ),
    }


def is_local(base_url: str) -> bool:
    """Whether the server is on this machine."""
    name = urlsplit(base_url).hostname or ""
    return name in {"localhost", "::1"} or name.endswith(".localhost") or name.startswith("127.")


def world_of(server: Server) -> World:
    return World(clock=time.monotonic, wall=time.time, chance=random.random, key=server.api_key, server=server.base_url)


def timeout_of(send: Send) -> httpx2.Timeout:
    """A connection of the pool is waited for as long as the deadline allows: it is no fault of the server's."""
    limits = send.timeouts
    return httpx2.Timeout(
        connect=_least(limits.connect, send.left),
        read=_least(limits.read, send.left),
        write=_least(limits.read, send.left),
        pool=send.left,
    )


def _least(limit: float | None, left: float | None) -> float | None:
    return limit if left is None else left if limit is None else min(limit, left)


def failure_of(error: Exception, world: World) -> Failure:
    """What an error of the HTTP library says, without the error itself: it knows the request, and so the key."""
    if _is_distrust(error):
        return Failure(f"{world.server} has a certificate that is not trusted", sent=False, lasting=True)
    return Failure(_reason(error, world), sent=not isinstance(error, _UNSENT), lasting=isinstance(error, _LASTING))


def _is_distrust(error: BaseException) -> bool:
    """Whether a certificate led to this: the ways on which errors come here lose now the cause, now the text."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, ssl.SSLCertVerificationError) or "CERTIFICATE_VERIFY_FAILED" in str(found):
            return True
        found = found.__cause__ or found.__context__
    return False


def _reason(error: Exception, world: World) -> str:
    # Some repeat the bytes that they could not make sense of: of our request, or of a reply with a password in it.
    said = world.hide(_BYTES.sub("...", str(error).strip()))
    match error:
        case httpx2.ConnectTimeout():
            return f"{world.server} did not take the connection in time"
        case httpx2.TimeoutException():
            return f"{world.server} did not answer in time"
        case httpx2.ConnectError():
            return f"{world.server} cannot be reached: {said or 'no connection'}"
    return f"the connection to {world.server} broke: {said or type(error).__name__}"
