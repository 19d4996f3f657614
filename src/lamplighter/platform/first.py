"""What a new platform begins with: a user, an organization, an API key and a project."""

from __future__ import annotations

import getpass
from dataclasses import dataclass

from lamplighter.api.models.projects import ProjectCreate
from lamplighter.api.secret import Secret
from lamplighter.control.app import Control
from lamplighter.control.caller import Caller
from lamplighter.control.features.projects.plan import wish

PROJECT_NAME = "first"
KEY_NAME = "lamp up"


@dataclass(frozen=True, slots=True)
class FirstThings:
    """Shown once. `api_key` is None on a platform that has been up before."""

    api_key: Secret | None = None
    project_id: str | None = None
    connection_uri: Secret | None = None


async def begin(control: Control) -> FirstThings:
    """Make a user, an organization and a project where there is no user. The project is not ready when this returns."""
    kernel = control.kernel
    async with kernel.catalog.transaction() as conn:
        # Two control planes on one catalog would otherwise both find it empty.
        await conn.execute("select pg_advisory_xact_lock(hashtext('lamplighter.first'))")
        if await (await conn.execute("select 1 from users limit 1")).fetchone() is not None:
            return FirstThings()
        name = getpass.getuser()
        user_id = await control.users.create(conn, email=f"{name}@localhost", name=name)
        await control.organizations.create(conn, name="Personal", admin=user_id)
    caller = Caller(key_id=0, kind="personal", user_id=user_id, org_id=None, project_id=None)
    wanted = wish(ProjectCreate(name=PROJECT_NAME), default_region=kernel.place.region_id)
    made = await control.projects.create(caller, wanted)
    entry = control.strings.entry(
        made.branch.endpoints[0],
        role=made.role.name,
        password=made.password.reveal(),
        database=made.database.name,
    )
    return FirstThings(project_id=made.project.id, connection_uri=Secret(entry["connection_uri"]))


async def first_key(control: Control, *, anew: bool) -> Secret | None:
    """A key for the first user, if nobody has ever had one, or `anew` for who has lost the one that was shown.

    Made last of all: between its making and its showing nothing may be left that can fail or be interrupted.
    """
    async with control.kernel.catalog.transaction() as conn:
        await conn.execute("select pg_advisory_xact_lock(hashtext('lamplighter.first'))")
        if not anew and await (await conn.execute("select 1 from api_keys limit 1")).fetchone() is not None:
            return None
        row = await (await conn.execute("select id from users order by created_at limit 1")).fetchone()
        assert row is not None
        _, token = await control.api_keys.mint(conn, name=KEY_NAME, user_id=row["id"], org_id=None, project_id=None)
        return token
