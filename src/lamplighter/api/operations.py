"""The API as a table: every operation of the contract once, by Neon's operation id.

Routes, the OpenAPI document, the permission matrix, the SDK and the coverage table are made from it. The entries
are in `lamplighter.api.table`, one file a group of resources.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from lamplighter.api.table import (
    auth,
    auth_legacy,
    branches,
    consumption,
    endpoints,
    organizations,
    preview,
    projects,
    snapshots,
    users,
)
from lamplighter.api.table.entry import (
    EVERY_KEY,
    JSON,
    KeyKind,
    Operation,
    Parameter,
)

__all__ = ["EVERY_KEY", "JSON", "OPERATIONS", "KeyKind", "Operation", "Parameter"]

_GROUPS: Sequence[Any] = (
    users,
    organizations,
    projects,
    branches,
    endpoints,
    snapshots,
    consumption,
    auth,
    auth_legacy,
    preview,
)

#: The whole contract, by operation id, in the order of the groups.
OPERATIONS: Mapping[str, Operation] = MappingProxyType(
    {operation.id: operation for group in _GROUPS for operation in group.OPERATIONS}
)
