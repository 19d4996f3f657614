"""What a caller gave, and nothing else: fields that were left out are not sent. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lamplighter.client.spec import OMIT


def given(fields: Mapping[str, Any], *, nullable: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Those of `fields` that are not None, and those of `nullable` that are not OMIT: None there goes out as null."""
    sent = {name: value for name, value in fields.items() if value is not None}
    sent.update((name, value) for name, value in (nullable or {}).items() if value is not OMIT)
    return sent
