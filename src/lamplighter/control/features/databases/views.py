"""A database as the API shows it."""

from __future__ import annotations

from lamplighter.api.models import databases as wire
from lamplighter.control.features.databases.service import Database


def show_database(database: Database) -> wire.Database:
    return wire.Database(
        id=database.id,
        branch_id=database.branch_id,
        name=database.name,
        owner_name=database.owner_name,
        created_at=database.created_at,
        updated_at=database.updated_at,
    )
