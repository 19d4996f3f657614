"""What is noted of a postmaster that ended by itself, on a real catalog."""

from __future__ import annotations

from typing import Any, cast

import pytest

from lamplighter.control.features.endpoints.doors import Doors
from lamplighter.control.kernel import Kernel
from lamplighter.control.reconcile import Reconciler

ACTIVE_ENDPOINT = """
    with u as (insert into users (id, email, name, login, created_at)
               values (gen_random_uuid(), 'e', 'n', 'l', now()) returning id),
         o as (insert into organizations (id, name, handle, created_at, updated_at)
               values ('org', 'n', 'h', now(), now()) returning id),
         p as (insert into projects (id, org_id, owner_user_id, name, region_id, pg_version, provisioner,
                                     store_passwords, default_endpoint_settings, settings, history_retention_seconds,
                                     created_at, updated_at)
               select 'p', o.id, u.id, 'n', 'r', 17, 'k', true, '{}', '{}', 0, now(), now() from o, u returning id),
         b as (insert into branches (id, project_id, name, is_default, current_state, state_changed_at, created_at,
                                     updated_at)
               select 'br', p.id, 'main', true, 'ready', now(), now(), now() from p returning id, project_id)
    insert into endpoints (id, project_id, branch_id, type, current_state, autoscaling_limit_min_cu,
                           autoscaling_limit_max_cu, suspend_timeout_seconds, settings, region_id, provisioner, port,
                           pooler_port, created_at, updated_at)
    select 'ep', b.project_id, b.id, 'read_write', 'active', 1, 1, 0, '{}', 'r', 'k', 20000, 20001, now(), now()
      from b
"""


class Below:
    """A machine whose compute has crashed, with a pooler that does not end at first; and what a gateway was told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.pooler_ends = False

    def is_running(self, _compute_id: str) -> bool:
        return False

    async def settle_crashed(self, _compute_id: str) -> None:
        if not self.pooler_ends:
            raise OSError("the pooler does not end")
        self.told.append("no pooler")

    async def set_door(self, door: Any) -> None:
        self.told.append(door.state)


async def test_the_door_of_what_crashed_is_shut_even_if_its_pooler_does_not_end(bench):
    """Else clients are led to a compute that is no more, until the pooler has ended; who calls tries that again."""
    await bench.execute(ACTIVE_ENDPOINT)
    below = Below()
    one = cast("Any", below)
    kernel = Kernel(catalog=bench.catalog, plane=one, gateway=one, wake=lambda: None, sealer=one)
    reconciler = Reconciler(kernel, Doors(kernel))
    with pytest.raises(OSError, match="does not end"):
        await reconciler.note_crash("ep", "killed")
    assert below.told == ["asleep"]
    async with bench.catalog.connection() as conn:
        row = await (await conn.execute("select current_state from endpoints")).fetchone()
    assert row["current_state"] == "idle"
    below.pooler_ends = True
    await reconciler.note_crash("ep", "killed")
    assert below.told == ["asleep", "no pooler", "asleep"]
