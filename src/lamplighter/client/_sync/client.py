# Made of _async/client.py by tools/async_to_sync.py; `make generate` writes it anew. Do not edit.
"""`Neon`: a client of one server."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from pydantic_core import from_json

from lamplighter.api.secret import Secret
from lamplighter.client._sync.base import ReplyCaller
from lamplighter.client._sync.extras import connection_string
from lamplighter.client._sync.resources import Groups
from lamplighter.client._sync.sender import Sender
from lamplighter.client.call import Answer, raw_response, unreadable
from lamplighter.client.config import Server
from lamplighter.client.contexts import find_server
from lamplighter.client.errors import ConfigurationError
from lamplighter.client.options import Options, Timeouts, timeouts_of
from lamplighter.client.pacing import Pacer, Pacing
from lamplighter.client.payload import RawResponse
from lamplighter.client.retry import RetryPolicy
from lamplighter.client.routes import route_of
from lamplighter.client.spec import JSON, Request, encode, free_path, pairs

if TYPE_CHECKING:
    import httpx2
    from psycopg import Connection
    from psycopg.rows import TupleRow


class Neon(Groups):
    """Neon's API: its cloud, or any other server that speaks it.

    Which server: `base_url` and `api_key`; or NEON_API_HOST and NEON_API_KEY; or the context that is named, chosen with
    `lamp use`, or written by `lamp up` (`client.config.choose` has the rules). `server` tells which it came to be.

    `timeout` is for one attempt: seconds (for connecting, and for each wait for more of an answer), or `Timeouts`.
    `deadline` is for a call as a whole, with its retries and waits for its turn. `retries` is how often a request is
    sent again, where that is safe. `pacing` keeps to Neon's limits: "client" counts what this client sends, "machine"
    what all processes of this user on this machine send with the same key and the same setting, "off" nothing.
    `transport` replaces the network.

    A client may be used by many tasks at once. It holds connections: close it, or use it as a context manager.

    Raises `ConfigurationError`.
    """

    def __init__(
        self,
        *,
        api_key: str | Secret | None = None,
        base_url: str | None = None,
        context: str | None = None,
        timeout: Timeouts | float | None = None,
        deadline: float | None = None,
        retries: int = 6,
        pacing: Pacing = "client",
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        # Tracebacks may show arguments, so there is no key among them from here on.
        api_key = Secret(api_key) if isinstance(api_key, str) else api_key
        # It takes longer to import than the rest: who only looks at types, or at --help, does without.
        from lamplighter.client._sync.driver import Driver  # noqa: PLC0415

        self._server = find_server(api_key=api_key, base_url=base_url, context=context)
        options = Options(timeouts=timeouts_of(timeout), deadline=deadline, retry=RetryPolicy(retries=retries))
        driver = Driver(self._server, transport=transport)
        self._use(Sender(driver, options, _pacer(pacing, self._server)))

    def _use(self, sender: Sender) -> None:
        self._sender = sender
        self._caller = ReplyCaller(sender)

    @property
    def server(self) -> Server:
        """The server that this client talks to, and how it was found."""
        return self._server

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._server}>"

    def with_options(
        self,
        *,
        timeout: Timeouts | float | None = None,
        deadline: float | None = None,
        retries: int | None = None,
    ) -> Self:
        """The same client with other options; what is not given stays. It shares connections and pacing.

        `float("inf")` takes a deadline off. Closing one closes both.
        """
        options = self._sender.options
        if timeout is not None:
            options = replace(options, timeouts=timeouts_of(timeout))
        if deadline is not None:
            options = replace(options, deadline=None if deadline == float("inf") else deadline)
        if retries is not None:
            options = replace(options, retry=replace(options.retry, retries=retries))
        other = copy.copy(self)
        # Groups that were made already belong to the other options.
        other.__dict__ = {name: value for name, value in vars(self).items() if name.startswith("_")}
        other._use(self._sender.with_options(options))  # noqa: SLF001 - a copy of this very class
        return other

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
    ) -> RawResponse[Any]:
        """Any request, known or not: `neon.request("GET", "/projects", query={"limit": 10})`.

        `path` is relative to the base URL and escaped already. Paced, retried and refused as all others are; `parse()`
        gives the JSON that came, None where nothing came.
        """
        method = method.upper()
        path = free_path(path)
        request = Request(
            method=method,
            path=path,
            query=pairs(query),
            body=None if body is None else encode(body),
            content_type=None if body is None else JSON,
            operation_id=route_of(method, path),
            safe=method in {"GET", "HEAD", "OPTIONS"},
        )
        answer = self._sender.send(request)
        return raw_response(answer, lambda: _json(answer))

    def connection_string(
        self,
        project_id: str,
        *,
        branch: str | None = None,
        endpoint: str | None = None,
        database: str | None = None,
        role: str | None = None,
        pooled: bool = False,
    ) -> str:
        """A connection string, password included, as the server makes it. It is a secret.

        `branch` and `endpoint` are ids; without them it is the default branch and its read-write endpoint. A database
        that is not named has to be the only one of the branch, and a role that is not named is the database's owner:
        they are looked up, with up to two more requests. Raises `Ambiguous`, which names the databases that there are.
        """
        return connection_string(
            self, project_id, branch=branch, endpoint=endpoint, database=database, role=role, pooled=pooled
        )

    def connect(
        self,
        project_id: str,
        *,
        branch: str | None = None,
        endpoint: str | None = None,
        database: str | None = None,
        role: str | None = None,
        pooled: bool = False,
        timeout: float = 60.0,
        autocommit: bool = False,
    ) -> Connection[TupleRow]:
        """A psycopg connection to what `connection_string` is for; it is tried again while the endpoint wakes.

        Needs psycopg: `pip install 'lamplighter[psycopg]'`. Raises `ConfigurationError` without it, `ConnectionFailed`,
        `DeadlineExceeded` after `timeout` seconds, and what `connection_string` raises.
        """
        from lamplighter.client._sync.connecting import connect  # noqa: PLC0415 - for those who connect

        return connect(
            self,
            project_id,
            branch=branch,
            endpoint=endpoint,
            database=database,
            role=role,
            pooled=pooled,
            timeout=timeout,
            autocommit=autocommit,
        )

    def close(self) -> None:
        """Closes the connections. Calls that are under way fail."""
        self._sender.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _pacer(pacing: Pacing, server: Server) -> Pacer | None:
    match pacing:
        case "off":
            return None
        case "client":
            return Pacer()
        case "machine":
            from lamplighter.client.shared_pacing import SharedStore  # noqa: PLC0415 - for those who ask for it

            return Pacer(SharedStore(server.base_url, server.api_key))
    raise ConfigurationError(f'pacing is "client", "machine" or "off", not {pacing!r}')


def _json(answer: Answer) -> Any:
    if not len(answer.payload):
        return None
    try:
        return from_json(answer.payload.reveal())
    except ValueError as error:
        # What it says is a place: `EOF while parsing a string at line 1 column 20`.
        wrong = str(error)
    raise unreadable(answer, wrong)
