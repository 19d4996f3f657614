"""Cursors: opaque to clients, checked here. One past the end gives an empty page, a malformed one is a bad request."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import asdict, dataclass

from lamplighter.api.errors import BadRequest

_INVALID = "invalid cursor: pass the value of pagination.next of the page before"


@dataclass(frozen=True, slots=True)
class BranchCursor:
    """Where a page of branches ended, in Neon's own form: base64 of JSON with these names."""

    branch_id: str
    sort_by: str
    sort_by_value: str
    sort_order: str

    def encode(self) -> str:
        return base64.b64encode(json.dumps(asdict(self)).encode()).decode()

    @classmethod
    def decode(cls, text: str) -> BranchCursor:
        """Raises BadRequest for anything that `encode` did not make."""
        try:
            fields = json.loads(base64.b64decode(text, validate=True))
            cursor = cls(**fields)
        except (binascii.Error, ValueError, TypeError, RecursionError) as error:
            raise BadRequest(_INVALID) from error
        if not all(isinstance(value, str) and _storable(value) for value in asdict(cursor).values()):
            raise BadRequest(_INVALID)
        return cursor


def _storable(text: str) -> bool:
    """Postgres text holds neither NUL nor half of a surrogate pair, which JSON can write."""
    return "\x00" not in text and not any("\ud800" <= letter <= "\udfff" for letter in text)
