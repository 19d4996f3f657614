"""One operation as the client needs it, and how a request is built of it. Pure.

Nothing here holds what the user gives to the limits and enums of the contract: a newer server may take more, and the
server's own refusal says better what is wrong. Refused are only values that would reach another resource.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from enum import Enum
from typing import Any, Final, Generic, TypeVar
from urllib.parse import quote, unquote, urlencode
from uuid import UUID

from pydantic import BaseModel, TypeAdapter
from pydantic_core import to_json

from lamplighter.api.secret import Secret

T = TypeVar("T")

JSON: Final = "application/json"
FORM: Final = "multipart/form-data"

_PLACE: Final = re.compile(r"{(\w+)}")
_FREE_PATH: Final = re.compile(r"(/([A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})+)+/?")
_RFC3339: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d")
_LSN: Final = re.compile(r"[0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8}")


class Omit(Enum):
    """The type of `OMIT`: a field that is not sent at all, where None means JSON's null."""

    OMIT = "omit"

    def __repr__(self) -> str:
        return "OMIT"

    def __bool__(self) -> bool:
        return False


OMIT: Final = Omit.OMIT


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Spec(Generic[T]):
    """An operation: where it is and what it answers.

    `reply` is an annotation for pydantic, None where nothing comes back. `unwrap` is the field of the reply that a call
    returns. With `no_content` the server may answer 204 without a body, and a call then returns None.
    """

    id: str
    method: str
    path: str
    reply: Any = None
    unwrap: str | None = None
    safe: bool = False
    body_media: str = JSON
    reply_media: str = JSON
    no_content: bool = False
    _adapter: list[TypeAdapter[Any]] = field(default_factory=list, init=False, repr=False)

    @property
    def adapter(self) -> TypeAdapter[Any]:
        """What reads the reply; built once, at the first reply."""
        if not self._adapter:
            self._adapter.append(TypeAdapter(self.reply))
        return self._adapter[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is to be sent. `path` is relative to the base URL and escaped already."""

    method: str
    path: str
    query: tuple[tuple[str, str], ...] = ()
    body: bytes | None = field(default=None, repr=False)
    content_type: str | None = None
    operation_id: str = ""
    safe: bool = False

    @property
    def target(self) -> str:
        """Path and query, as they go over the wire."""
        return f"{self.path}?{urlencode(self.query, quote_via=quote, safe='')}" if self.query else self.path


def build(
    spec: Spec[Any],
    *,
    path: Mapping[str, object],
    query: Mapping[str, object] | None = None,
    body: object | None = None,
) -> Request:
    """The request for one call of an operation.

    Raises:
        ValueError: a value in the path is empty or would change which path it is; or a time has no zone.
    """
    content: bytes | None = None
    content_type: str | None = None
    if body is not None:
        content, content_type = _form(body) if spec.body_media == FORM else (encode(body), JSON)
    return Request(
        method=spec.method,
        path=_fill(spec.path, path),
        query=pairs(query),
        body=content,
        content_type=content_type,
        operation_id=spec.id,
        safe=spec.safe,
    )


def _fill(template: str, values: Mapping[str, object]) -> str:
    return _PLACE.sub(lambda place: segment(place[1], values[place[1]]), template)


def segment(name: str, value: object) -> str:
    """One part of a path, escaped: everything but letters, digits and `-._~`, a slash too.

    Raises:
        ValueError: it is empty, `.` or `..` (those would be another path), or no text, number or UUID.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | UUID):
        raise ValueError(f"{name} has to be a text, not {type(value).__name__}")  # noqa: TRY004 - one kind for all of them
    text = str(value)
    if text in {"", ".", ".."}:
        raise ValueError(f"{name} cannot be {text!r}: give the id or the name of what is meant")
    return quote(text, safe="")


def free_path(path: str) -> str:
    """A path that somebody wrote, `/projects/...`, if it stays below the base URL.

    Raises:
        ValueError: it has no slash at its start, or parts such as `..`, or what does not belong into a path.
    """
    parts = unquote(path).split("/")
    if not _FREE_PATH.fullmatch(path) or any(part in {".", ".."} for part in parts):
        raise ValueError(f"a path begins with / and is escaped, as in /projects/my-project, not {path!r}")
    return path


def pairs(query: Mapping[str, object] | None) -> tuple[tuple[str, str], ...]:
    """The query as texts. None is left out; a list gives one pair for each of its values."""
    if not query:
        return ()
    return tuple(
        (name, _text(name, value))
        for name, given in query.items()
        for value in (given if isinstance(given, list | tuple | AbstractSet) else (given,))
        if value is not None and value is not OMIT
    )


def _text(name: str, value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case datetime():
            return moment(value)
        case Enum():
            return str(value.value)
        case Secret():
            return value.reveal()
        case str() | int() | float() | UUID() | date():
            return str(value)
    raise ValueError(f"{name} cannot be {type(value).__name__}")


def moment(when: datetime) -> str:
    """A time as the API writes it, `2026-01-31T12:00:00Z`; parts of a second only where there are any.

    Raises:
        ValueError: it has no zone.
    """
    if when.tzinfo is None:
        raise ValueError(f"give a time with a zone, such as datetime(..., tzinfo=UTC), not {when.isoformat()}")
    return when.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"


def point_in_time(at: datetime | str | None, lsn_field: str, timestamp_field: str) -> dict[str, Any]:
    """The field that says which moment of a branch is meant: a time, or an LSN such as `0/1A2B3C4`.

    Raises:
        ValueError: a text that is neither, or a time without a zone.
    """
    if at is None:
        return {}
    if isinstance(at, datetime):
        return {timestamp_field: moment(at)}
    if _LSN.fullmatch(at):
        return {lsn_field: at}
    if _RFC3339.match(at):
        return {timestamp_field: at}
    raise ValueError(f"at has to be a time such as 2026-01-31T12:00:00Z or an LSN such as 0/1A2B3C4, not {at!r}")


def encode(body: object) -> bytes:
    """A body as JSON. Models give what was set in them; OMIT is left out; None is null."""
    return to_json(plain(body))


def plain(value: object) -> Any:
    """What a body is made of, down to what JSON knows."""
    result: Any = value
    match value:
        case BaseModel():
            result = plain(value.model_dump(mode="python", exclude_unset=True, by_alias=True))
        case Mapping():
            result = {str(key): plain(each) for key, each in value.items() if each is not OMIT}
        case datetime():
            result = moment(value)
        case Secret():
            result = value.reveal()
        case Enum():
            result = plain(value.value)
        case Sequence() | AbstractSet() if not isinstance(value, str | bytes | bytearray | memoryview):
            result = [plain(each) for each in value]
    return result


def _form(body: object) -> tuple[bytes, str]:
    """Parts of a form. The boundary is a digest of them, so that the same call sends the same bytes."""
    given = body.model_dump(exclude_unset=True, by_alias=True) if isinstance(body, BaseModel) else body
    if not isinstance(given, Mapping):
        raise ValueError(f"a form has fields, not {type(body).__name__}")  # noqa: TRY004 - as all of build
    parts = [_part(str(name), value) for name, value in given.items() if value is not None and value is not OMIT]
    boundary = hashlib.sha256(b"".join(head + content for head, content in parts)).hexdigest()
    mark = boundary.encode()
    lines = b"".join(b"--" + mark + b"\r\n" + head + b"\r\n\r\n" + content + b"\r\n" for head, content in parts)
    return lines + b"--" + mark + b"--\r\n", f"{FORM}; boundary={boundary}"


def _part(name: str, value: object) -> tuple[bytes, bytes]:
    head = f'Content-Disposition: form-data; name="{name}"'
    if isinstance(value, bytes | bytearray | memoryview):
        return f'{head}; filename="{name}"\r\nContent-Type: application/octet-stream'.encode(), bytes(value)
    if isinstance(value, Mapping | list | tuple):
        return head.encode(), json.dumps(plain(value)).encode()
    return head.encode(), _text(name, value).encode()
