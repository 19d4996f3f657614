"""Values of Python as they go over the wire: what a test gives as a reply becomes plain JSON. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel

from lamplighter.api.models.base import wire_time


def to_wire(value: Any) -> Any:
    """`value` with models, times and ids as JSON has them. Raises TypeError for what has no form there."""
    match value:
        case BaseModel():
            return value.model_dump(mode="json")
        case datetime():
            return wire_time(value)
        case UUID():
            return str(value)
        case Mapping():
            return {str(key): to_wire(item) for key, item in value.items()}
        case None | bool() | int() | float() | str():
            return value
        case list() | tuple():
            return [to_wire(item) for item in value]
        case _:
            raise TypeError(
                f"a {type(value).__name__} has no form in JSON: give str, int, list, dict, datetime or a model"
            )
