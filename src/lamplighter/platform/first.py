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

    api_key: Secret | None
    project_id: str | None = None
    connection_uri: Secret | None = None


async def begin(control: Control, *, new_key: bool = False) -> FirstThings:
    """Make what is missing. `new_key` makes another key for the first user, for who has lost the one that was shown."""
    kernel = control.kernel
    async with kernel.catalog.transaction() as conn:
        # Two control planes on one catalog would otherwise both find it empty.
        await conn.execute("select pg_advisory_xact_lock(hashtext('lamplighter.first'))")
        row = await (await conn.execute("select id from users order by created_at limit 1")).fetchone()
        if row is not None and not new_key:
            return FirstThings(None)
        if row is None:
            name = getpass.getuser()
            user_id = await control.users.create(conn, email=f"{name}@localhost", name=name)
            await control.organizations.create(conn, name="Personal", admin=user_id)
        else:
            user_id = row["id"]
        key, token = await control.api_keys.mint(conn, name=KEY_NAME, user_id=user_id, org_id=None, project_id=None)
    if row is not None:
        return FirstThings(token)
    caller = Caller(key_id=key.id, kind="personal", user_id=user_id, org_id=None, project_id=None)
    wanted = wish(ProjectCreate(name=PROJECT_NAME), default_region=kernel.place.region_id)
    made = await control.projects.create(caller, wanted)
    entry = control.strings.entry(
        made.branch.endpoints[0],
        role=made.role.name,
        password=made.password.reveal(),
        database=made.database.name,
        major=made.project.pg_version,
    )
    return FirstThings(token, made.project.id, Secret(entry["connection_uri"]))
