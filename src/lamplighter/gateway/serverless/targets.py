"""Where a host that a caller names leads to. Whoever mounts the app knows the routes; the app connects nowhere else."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.types import Scope

from lamplighter.gateway.serverless.errors import NotAllowed


@dataclass(frozen=True, slots=True)
class Target:
    """An endpoint's own door, where it is woken and counted as for any client.

    `address` is an IP address, or the absolute path of a directory with a Unix socket named as Postgres names it
    (`.s.PGSQL.<port>`). `admits` says whether a caller's IP address may come in, since the door sees only us; so does
    `wakes`, for a caller's address and the one that it connected to: it raises for who may not wake the endpoint.
    `leads_here` raises for a caller that came to the address of another endpoint.
    """

    address: str
    port: int
    admits: Callable[[str], bool] | None = None
    wakes: Callable[[str | None, str | None], None] | None = None
    leads_here: Callable[[Scope], None] | None = None

    @property
    def unix_path(self) -> str | None:
        """The socket's path if it is a Unix socket."""
        return f"{self.address}/.s.PGSQL.{self.port}" if self.address.startswith("/") else None

    def check(self, scope: Scope) -> None:
        """Raises NotAllowed, SqlFailed. A caller whose address is not known is refused wherever addresses matter."""
        if self.leads_here is not None:
            self.leads_here(scope)
        client, server = (scope[end][0] if scope.get(end) else None for end in ("client", "server"))
        if self.admits is not None and not (client and self.admits(client)):
            raise NotAllowed(client or "(unknown)")
        if self.wakes is not None:
            self.wakes(client, server)


#: From a host and port, as a connection string or a Host header names them, to the endpoint. Raises UnknownHost.
#: The first label may be an endpoint's id or Neon's `api`; a pooled host is better led to the endpoint itself, for SQL
#: over HTTP keeps connections itself and cannot clear the sessions behind PgBouncer.
Resolve = Callable[[str, int | None], Awaitable[Target]]
