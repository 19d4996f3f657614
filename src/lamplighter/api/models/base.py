"""What all wire models share.

Fields that are not known here are kept and sent on. Two ways of reading a model differ:

- as a client reads a reply (pydantic's default): types are checked; enums take values that are not known yet, and what
  is marked `Given` is not held to its limits, so that a newer server does not break an older client.
- as a server reads a request (`strict=True`, `Model.from_request`): wrong types, unknown values of enums, values out of
  their limits, and null where the contract knows no null are all errors.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler, StringConstraints
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from lamplighter.api import ids

T = TypeVar("T")

_SECRET = re.compile(r"password|secret|token|credential|_?key$|ur[il]$|dsn", re.IGNORECASE)
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


class Model(BaseModel):
    """Any object of the API. `model_dump(mode="json")` gives what goes over the wire."""

    # Building a validator costs more than the class: a command uses a few of the models, so each is built at first use.
    model_config = ConfigDict(
        extra="allow",
        validate_by_alias=True,
        validate_by_name=True,
        serialize_by_alias=True,
        defer_build=True,
        protected_namespaces=(),
    )

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        # A newer server may send secrets that are not known here yet: their names have to do.
        extra = self.__pydantic_extra__ or {}
        return [
            (name, value)
            for name, value in super().__repr_args__()
            if name not in extra or not _SECRET.search(str(name))
        ]

    @classmethod
    def from_request(cls, body: bytes | str) -> Self:
        """Reads a JSON body as a server must. Raises `pydantic.ValidationError`."""
        return cls.model_validate_json(body, strict=True)


class OneOf:
    """Marks an enum of the contract: one of `values` in requests; any other string too in what a server says."""

    __slots__ = ("values",)

    def __init__(self, *values: str) -> None:
        self.values = values

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.lax_or_strict_schema(handler(source), core_schema.literal_schema(list(self.values)))

    def __get_pydantic_json_schema__(self, _schema: CoreSchema, _handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"type": "string", "enum": list(self.values)}


@dataclass(frozen=True, slots=True)
class _InRequests:
    """Holds a value to what it wraps in requests only, and documents that. With `nullable`: refuses null there."""

    nullable: bool = False

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        inner: Any = handler(source)
        if self.nullable:
            return core_schema.lax_or_strict_schema(inner, inner["schema"])
        return core_schema.lax_or_strict_schema(_without_limits(inner), inner)

    def __get_pydantic_json_schema__(self, schema: Any, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        # The handler takes the lax branch, and would pass over the strict one's own formats if it were given bare.
        strict = schema["strict_schema"]
        return handler(core_schema.lax_or_strict_schema(strict, strict))


def _without_limits(schema: Any) -> CoreSchema:
    match schema["type"]:
        case "str":
            return core_schema.str_schema()
        case "int":
            return core_schema.int_schema()
        case "float":
            return core_schema.float_schema()
        case "list":
            return core_schema.list_schema(schema["items_schema"])
        case other:
            raise TypeError(f"Given cannot take the limits off a {other}")


class _Moment:
    """Reads RFC 3339 into UTC. A time without a zone is taken for UTC, and refused in requests."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        asked = core_schema.json_or_python_schema(
            core_schema.no_info_after_validator_function(_from_rfc3339, core_schema.str_schema()),
            core_schema.datetime_schema(tz_constraint="aware"),
        )
        return core_schema.no_info_after_validator_function(
            _in_utc,
            core_schema.lax_or_strict_schema(handler(source), asked),
            serialization=core_schema.plain_serializer_function_ser_schema(wire_time, when_used="json"),
        )

    def __get_pydantic_json_schema__(self, _schema: CoreSchema, _handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"type": "string", "format": "date-time"}


def wire_time(moment: datetime) -> str:
    """A time as the API writes it, `2026-01-31T12:00:00Z`: whole seconds, in UTC."""
    return _in_utc(moment).replace(tzinfo=None).isoformat(timespec="seconds") + "Z"


def _from_rfc3339(text: str) -> datetime:
    # pydantic takes a date alone, or seconds since 1970 in a string, as well: no client means those.
    try:
        if _RFC3339.fullmatch(text):
            return datetime.fromisoformat(text.upper())
    except ValueError:
        pass
    raise PydanticCustomError("datetime_form", "Input should be a time such as 2026-01-31T12:00:00Z")


def _in_utc(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        return moment.replace(tzinfo=UTC)
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise PydanticCustomError("datetime_range", "Input should be a time of the years 1 to 9999") from None


def _is_none(value: object) -> bool:
    return value is None


#: A field that may be left out, but is never null on the wire: None here means "left out".
Maybe = Annotated[T | None, _InRequests(nullable=True), Field(exclude_if=_is_none)]

#: A value that a server gives: documented with its limits, held to them in requests only.
Given = Annotated[T, _InRequests()]

#: A secret: the value is there, but `repr` (and so a traceback that shows locals) leaves it out.
Hidden = Annotated[T, Field(repr=False)]

#: Marks a field that the contract keeps for old clients.
DEPRECATED = Field(json_schema_extra={"deprecated": True})

Timestamp = Annotated[datetime, _Moment()]

Id = Annotated[str, StringConstraints(pattern=ids.PATTERN)]
Uuid = Annotated[
    str,
    StringConstraints(pattern=r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"),
    Field(json_schema_extra={"format": "uuid"}),
]
Email = Annotated[
    str,
    StringConstraints(min_length=1, max_length=256, pattern=r"^[^@\s]+@[^@\s]+$"),
    Field(json_schema_extra={"format": "email"}),
]
Uri = Annotated[str, Field(json_schema_extra={"format": "uri"})]
Name = Annotated[str, StringConstraints(min_length=1, max_length=256)]

Int32 = Annotated[int, Field(ge=-(2**31), le=2**31 - 1, json_schema_extra={"format": "int32"})]
Int64 = Annotated[int, Field(ge=-(2**63), le=2**63 - 1, json_schema_extra={"format": "int64"})]
Count = Annotated[int, Field(ge=0, le=2**63 - 1, json_schema_extra={"format": "int64"})]
