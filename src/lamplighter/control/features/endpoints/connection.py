"""Connection strings: where a role reaches a database of a branch."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from lamplighter.api.errors import NotFound
from lamplighter.control.caller import Caller
from lamplighter.control.catalog.pool import Connection
from lamplighter.control.features.databases.service import Databases
from lamplighter.control.features.endpoints import store
from lamplighter.control.features.endpoints.model import READ_WRITE, Endpoint
from lamplighter.control.features.endpoints.views import host_of
from lamplighter.control.features.roles.service import Roles
from lamplighter.control.kernel import Kernel
from lamplighter.control.scope import find_branch, find_project


def render_uri(*, role: str, password: str, host: str, database: str) -> str:
    """A libpq URI. It insists on TLS whatever the Postgres: for a build without OpenSSL the gateway ends it."""
    login = f"{quote(role, safe='')}:{quote(password, safe='')}"
    return f"postgresql://{login}@{host}/{quote(database, safe='')}?sslmode=require&channel_binding=require"


class ConnectionStrings:
    def __init__(self, kernel: Kernel, *, roles: Roles, databases: Databases) -> None:
        self._kernel = kernel
        self._roles = roles
        self._databases = databases

    async def uri(
        self,
        caller: Caller,
        project_id: str,
        *,
        branch_id: str | None,
        endpoint_id: str | None,
        database: str,
        role: str,
        pooled: bool = False,
    ) -> str:
        """For `endpoint_id`, or the read-write endpoint of the branch (the default branch for None).

        `pooled`: by PgBouncer; where there is none, the compute's own address, where a session is one too.

        Raises NotFound, PreconditionFailed where passwords are not stored.
        """
        async with self._kernel.catalog.connection() as conn:
            project = await find_project(conn, caller, project_id)
            endpoint = await self._endpoint(conn, project_id, branch_id, endpoint_id)
            await self._databases.get(conn, endpoint.branch_id, database)
            password = await self._roles.password(conn, endpoint.branch_id, role, stored=project.store_passwords)
        return render_uri(
            role=role,
            password=password.reveal(),
            host=host_of(endpoint, self._kernel.place, pooled=pooled and self._kernel.plane.pools),
            database=database,
        )

    async def of_new(self, project_id: str, endpoint: Endpoint, role: str, database: str) -> dict[str, Any]:
        """Neon's `connection_uris` entry for what was just made. Raises PreconditionFailed."""
        async with self._kernel.catalog.connection() as conn:
            row = await (
                await conn.execute("select store_passwords from projects where id = %s", (project_id,))
            ).fetchone()
            assert row is not None
            password = (
                await self._roles.password(conn, endpoint.branch_id, role, stored=row["store_passwords"])
            ).reveal()
        return self.entry(endpoint, role=role, password=password, database=database)

    def entry(self, endpoint: Endpoint, *, role: str, password: str, database: str) -> dict[str, Any]:
        host = host_of(endpoint, self._kernel.place)
        return {
            "connection_uri": render_uri(role=role, password=password, host=host, database=database),
            "connection_parameters": {
                "database": database,
                "password": password,
                "role": role,
                "host": host,
                "pooler_host": host_of(endpoint, self._kernel.place, pooled=self._kernel.plane.pools),
            },
        }

    async def _endpoint(
        self, conn: Connection, project_id: str, branch_id: str | None, endpoint_id: str | None
    ) -> Endpoint:
        if endpoint_id is not None:
            endpoint = await store.find(conn, project_id, endpoint_id)
            if endpoint is None or branch_id not in (None, endpoint.branch_id):
                raise NotFound("endpoint not found")
            return endpoint
        branch = await find_branch(conn, project_id, branch_id)
        found = await store.of_branch(conn, branch.id)
        if not found:
            raise NotFound("endpoint not found: the branch has none")
        return next((one for one in found if one.type == READ_WRITE), found[0])
