"""What a server answered, kept so that a traceback with locals does not show it: replies carry passwords and keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Generic, TypeVar, cast

T = TypeVar("T")

_UNREAD = object()


class Payload:
    """The bytes of a body. Only `reveal()` gives them."""

    __slots__ = ("_content",)

    def __init__(self, content: bytes) -> None:
        self._content = content

    def reveal(self) -> bytes:
        """The bytes themselves."""
        return self._content

    def __len__(self) -> int:
        return len(self._content)

    def __repr__(self) -> str:
        return f"<{len(self._content)} bytes>"


class RawResponse(Generic[T]):
    """An answer before it is read: status, headers, bytes. `parse()` gives what the plain method would have given."""

    __slots__ = ("_headers", "_operation_id", "_parse", "_parsed", "_payload", "request_id", "status")

    def __init__(
        self,
        status: int,
        headers: Mapping[str, str],
        payload: Payload,
        *,
        parse: Callable[[], T],
        operation_id: str = "",
        request_id: str | None = None,
    ) -> None:
        self.status = status
        self.request_id = request_id
        self._headers = headers
        self._payload = payload
        self._parse = parse
        self._parsed: object = _UNREAD
        self._operation_id = operation_id

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers of the answer; names are looked up in any case."""
        return self._headers

    @property
    def content(self) -> bytes:
        """The body as it came."""
        return self._payload.reveal()

    def parse(self) -> T:
        """Reads the body as the operation's reply. Raises `UnreadableReply`."""
        if self._parsed is _UNREAD:
            self._parsed = self._parse()
        return cast("T", self._parsed)

    def __repr__(self) -> str:
        return f"<RawResponse {self.status} {self._operation_id} {self._payload!r}>"
