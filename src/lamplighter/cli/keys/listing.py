"""`lamp keys list`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from lamplighter.cli.groups import Command
from lamplighter.cli.keys.common import keys_command
from lamplighter.cli.output import Column, emit
from lamplighter.cli.text import NOTHING

if TYPE_CHECKING:
    from lamplighter import Neon
    from lamplighter.cli.keys.common import KeySession
    from lamplighter.keys.inventory import KeyFact


def _days(age: object) -> str:
    return f"{age} d" if isinstance(age, int) else NOTHING


_COLUMNS = (
    Column("id", right=True),
    Column("name"),
    Column("scope"),
    Column("lineage"),
    Column("role"),
    Column("owner"),
    Column("age_days", "Age", right=True, show=_days),
    Column("created_at", "Created"),
    Column("created_by.name", "By"),
    Column("last_used_at", "Last used"),
    Column("last_used_from_addr", "From"),
)


@click.command("list", cls=Command)
@click.option("--org-id", "org_ids", multiple=True, metavar="ID", help="Only this organization's. [default: all]")
@click.option("--lineage", metavar="NAME", help="Only the keys of this lineage.")
@keys_command()
def list_(session: KeySession, org_ids: tuple[str, ...], lineage: str | None) -> None:
    """List keys, personal and of organizations: what they reach, whose they are, when and from where they were used.

    Never a value: Neon shows it once, and `lamp keys` shows it to stores alone.

    \b
    Examples:
      lamp keys list
      lamp keys list --lineage ci --output json
    """  # noqa: D301 - click wants the character itself
    found = list(_keys(session, org_ids))
    facts = [each for each in facts_of(session, found) if lineage in (None, each["lineage"])]
    emit(session, facts, _COLUMNS, empty="There are no keys.")


def _keys(session: KeySession, org_ids: tuple[str, ...]) -> Iterator[KeyFact]:
    neon = session.neon
    personal = session.server.identity().kind == "personal"
    if personal and not org_ids:
        yield from (_fact(each, "personal", None) for each in neon.api_keys.list())
    for org_id in org_ids or _organizations(session, neon, personal=personal):
        for each in neon.organizations.api_keys(org_id):
            yield _fact(each, "project" if each.project_id else "organization", org_id)


def _organizations(session: KeySession, neon: Neon, *, personal: bool) -> list[str]:
    if not personal:
        return [session.server.identity().account_id]
    return list(dict.fromkeys([*(each.id for each in neon.users.organizations()), *session.policy.org_ids]))


def _fact(listed: Any, kind: Any, org_id: str | None) -> KeyFact:
    from lamplighter.keys.inventory import KeyFact  # noqa: PLC0415 - `--help` does without

    return KeyFact(
        id=listed.id,
        name=listed.name,
        kind=kind,
        created_at=listed.created_at,
        created_by=str(listed.created_by.id),
        creator=listed.created_by.name,
        org_id=org_id,
        project_id=getattr(listed, "project_id", None),
        last_used_at=listed.last_used_at,
        last_used_from=tuple(filter(None, (part.strip() for part in listed.last_used_from_addr.split(",")))),
    )


def facts_of(session: KeySession, keys: list[KeyFact]) -> list[dict[str, Any]]:
    """For programs: keys with what policy and journal know of them."""
    from lamplighter.keys.findings import View  # noqa: PLC0415 - `--help` does without
    from lamplighter.keys.inventory import Inventory  # noqa: PLC0415 - the same

    now, state = datetime.now(UTC), session.state()
    minter = session.policy.neon.minter_id
    inventory = Inventory(at=now, keys=tuple(keys), state=state, minter_id=minter)
    view = View(inventory=inventory, policy=session.policy, now=now)
    return [_shown(each, view, now) for each in view.keys]


def _shown(key: KeyFact, view: Any, now: datetime) -> dict[str, Any]:
    lineage = view.lineages.get(key.id)
    declared: Any = view.policy.lineages.get(lineage)
    return {
        "id": key.id,
        "name": key.name,
        "created_at": key.created_at.isoformat(),
        "created_by": {"id": key.created_by, "name": key.creator},
        "last_used_at": key.last_used_at.isoformat() if key.last_used_at else None,
        "last_used_from_addr": ", ".join(key.last_used_from),
        "scope": key.kind,
        "org_id": key.org_id,
        "project_id": key.project_id,
        "owner": declared.owner if declared else None,
        "age_days": (now - key.created_at).days,
        "lineage": lineage,
        "role": _role(key, view, lineage),
    }


def _role(key: KeyFact, view: Any, lineage: str | None) -> str | None:
    """What the key is in its lineage, as far as that is known."""
    if key.id == view.inventory.minter_id:
        return "minter"
    known: Mapping[str, Any] = view.inventory.state.lineages
    if lineage is None:
        return None
    if lineage not in known or key.id not in known[lineage].keys:
        return "unknown"
    present = view.current(lineage)
    return "current" if present is not None and present.id == key.id else "old"
