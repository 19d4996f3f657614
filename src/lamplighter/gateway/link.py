"""The line between platform and gateway: one JSON object a line, by a Unix socket of mode 0600. Pure."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, TypeAdapter

from lamplighter.gateway.ports import ToGateway, ToPlatform

#: Longest line, in bytes: the whole table of some ten thousand endpoints.
LONGEST = 16 * 1024 * 1024

_TO_GATEWAY: TypeAdapter[ToGateway] = TypeAdapter(Annotated[ToGateway, Field(discriminator="kind")])
_TO_PLATFORM: TypeAdapter[ToPlatform] = TypeAdapter(Annotated[ToPlatform, Field(discriminator="kind")])


def to_gateway(message: ToGateway) -> bytes:
    return _TO_GATEWAY.dump_json(message) + b"\n"


def read_by_gateway(line: bytes) -> ToGateway:
    """Raises ValueError."""
    return _TO_GATEWAY.validate_json(line)


def to_platform(message: ToPlatform) -> bytes:
    return _TO_PLATFORM.dump_json(message) + b"\n"


def read_by_platform(line: bytes) -> ToPlatform:
    """Raises ValueError."""
    return _TO_PLATFORM.validate_json(line)
