"""One client for all stores that are reached over HTTP: the only place where their errors are put into words.

A message has the status, the store's code and its id of the request; never a body, a value or a token. Values leave in
a body alone, which is wiped after it was sent. Redirects are not followed: the token is for this host.
"""

from __future__ import annotations

import json
import os
import re
import ssl
import time
from base64 import b64encode
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from ipaddress import ip_address
from typing import Any, Final, Self
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit
from urllib.request import getproxies_environment, proxy_bypass

from lamplighter.api.secret import Secret
from lamplighter.keys.errors import PolicyError, SinkError, SinkNotFound, SinkRefused, SinkUnreachable, SinkUnsafe
from lamplighter.keys.scan import members
from lamplighter.keys.sinks.json_text import decoded, escaped
from lamplighter.keys.sinks.registry import no_options
from lamplighter.keys.value import KeyBuffer, wipe
from lamplighter.keys.wire import Reply, receive

#: Seconds for one request, all of it.
TIMEOUT: Final = 30.0
_TRIES: Final = 4
#: Seconds. A store that asks for a longer pause gets an error that says so: the rotation is resumed later.
_LONGEST_PAUSE: Final = 60.0
_BUSY: Final = frozenset({429, 503})
#: Words and small numbers: a store that answers a look with a piece of what it holds as the code is not repeated.
_CODE: Final = re.compile(r"(?=.{1,64}$)(?:[A-Za-z]{1,24}|[0-9]{1,8})(?:[_.:/-](?:[A-Za-z]{1,24}|[0-9]{1,8}))*")
_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9.:/-]{0,63}")
_TOKEN: Final = re.compile(r"[\x21-\x7e]+")
#: A text that has so many characters in a row of what we sent is not shown.
_PIECE: Final = 8


class _Value:
    def __repr__(self) -> str:
        return "VALUE"


#: Stands for the value in what is given to `json_body`.
VALUE: Final = _Value()


class Body:
    """What a request carries. Shows itself as `***`; `HttpStore.call` wipes it.

    `about` is the value where the body has it in another form, such as sealed.
    """

    __slots__ = ("_about", "_data", "content_type")

    def __init__(
        self, data: bytearray, *, content_type: str = "application/json", about: KeyBuffer | None = None
    ) -> None:
        self._data = data
        self._about = about
        self.content_type = content_type

    @contextmanager
    def reveal(self) -> Iterator[memoryview]:
        """The bytes to send."""
        with memoryview(self._data) as view:
            yield view

    def holds(self, part: bytes) -> bool:
        """Whether `part` is a piece of what is sent, or of the value."""
        if part in self._data:
            return True
        if not self._about:
            return False
        with self._about.reveal() as view:
            return any(view[at : at + len(part)] == part for at in range(len(view) - len(part) + 1))

    def wipe(self) -> None:
        wipe(self._data)

    def __len__(self) -> int:
        return len(self._data)

    def __repr__(self) -> str:
        return "***"


def json_body(content: Any, value: KeyBuffer | None = None, *, content_type: str = "application/json") -> Body:
    """`content` as JSON, with `value` as a string where `VALUE` stands. Raises SinkError for bytes that are no text."""
    if value is None:
        return Body(bytearray(json.dumps(content).encode()), content_type=content_type)
    # Longer than any run that the content could have by accident.
    mark = f"<{os.urandom(16).hex()}>"
    head, tail = json.dumps(content, default=lambda _: mark).encode().split(b'"' + mark.encode() + b'"')
    try:
        with value.reveal() as view:
            return Body(escaped(view, before=head + b'"', after=b'"' + tail), content_type=content_type)
    except ValueError:
        pass
    raise SinkError("cannot hold bytes that are no UTF-8 text")


class Answer:
    """What a store said, with a status that the caller expects. As a context manager it is wiped at the end."""

    __slots__ = ("_reply", "_senseless", "headers", "status")

    def __init__(self, reply: Reply, senseless: Callable[[], SinkError]) -> None:
        self.status = reply.status
        self.headers = reply.headers
        self._reply = reply
        self._senseless = senseless

    @property
    def date(self) -> datetime | None:
        """The store's clock."""
        return date_of(self.headers)

    def json(self) -> dict[str, Any]:
        """The object that the body is, without what may be a value. Raises SinkUnreachable when it is none."""
        known = _object(self._reply)
        if known is None:
            raise self._senseless()
        return known

    def fields(self, *names: str) -> dict[str, Any]:
        """Some members of the object, and no other: for a body that holds a value too. Raises SinkUnreachable."""
        try:
            with self._reply.reveal() as view:
                found = members(view)
                return {name: json.loads(bytes(view[slice(*found[name])])) for name in names if name in found}
        except (ValueError, RecursionError):
            pass
        raise self._senseless()

    def value(self, *path: str) -> KeyBuffer | None:
        """The string at `path`, without a copy in a `str`; None for null, for an empty one, or for no such member.

        Raises SinkUnreachable for what is no string.
        """
        text: bytearray | None = None
        try:
            with self._reply.reveal() as view:
                span = _span(view, path)
                with view[slice(*span)] as found:
                    if bytes(found[:4]) in (b"null", b'""'):
                        return None
                    text = decoded(found)
            return KeyBuffer(text)
        except (ValueError, KeyError) as error:
            missing = isinstance(error, KeyError)
        if missing:
            return None
        raise self._senseless()

    def wipe(self) -> None:
        self._reply.wipe()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.wipe()

    def __repr__(self) -> str:
        return f"<Answer {self.status}>"


def _object(reply: Reply) -> dict[str, Any] | None:
    with reply.reveal() as view:
        try:
            known = json.loads(bytes(view))
        except (ValueError, RecursionError):
            return None
    return known if isinstance(known, dict) else None


def _span(view: memoryview, path: Iterable[str]) -> tuple[int, int]:
    start, end = 0, len(view)
    for name in path:
        with view[start:end] as part:
            if bytes(part[:4]) == b"null":
                raise KeyError
            inner = members(part)[name]
        start, end = start + inner[0], start + inner[1]
    return start, end


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpStore:
    """The API of one store, as one sink uses it.

    `token` is asked for with every call, and follows `header` in the request's head. `hints` say what to do by status.
    """

    base_url: str
    address: str
    token: Callable[[], Secret]
    header: str = "Authorization: Bearer "
    headers: Mapping[str, str] = field(default_factory=dict)
    request_id: str = "x-request-id"
    hints: Mapping[int, str] = field(default_factory=dict)
    context: Callable[[], ssl.SSLContext] = ssl.create_default_context
    timeout: float = TIMEOUT

    def __post_init__(self) -> None:
        check_url(self.base_url, self.address)

    def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | int] | None = None,
        body: Body | None = None,
        allow: Collection[int] = (),
        again: bool | None = None,
    ) -> Answer:
        """One request; `path` is escaped (see `path_of`). 2xx and the statuses in `allow` are answers, others raise.

        What a busy store turned away is asked again if that does no harm, as `again` says: by default all but POST.
        """
        if query:
            path = f"{path}?{urlencode(query)}"
        try:
            reply = self._answered(method, path, body, again=method != "POST" if again is None else again)
            if 200 <= reply.status < 300 or reply.status in allow:
                return Answer(reply, lambda: self.senseless(reply.status))
            with reply:
                failed = self._error(reply, body)
        finally:
            if body is not None:
                body.wipe()
        raise failed

    def senseless(self, status: int) -> SinkUnreachable:
        """For an answer that is not what this store says."""
        return SinkUnreachable(
            f"HTTP {status}, with an answer that makes no sense", address=self.address, status=status
        )

    def _answered(self, method: str, path: str, body: Body | None, *, again: bool) -> Reply:
        for attempt in range(_TRIES):
            reply = self._exchange(method, path, body)
            pause = _pause(reply, attempt)
            if pause is None or pause > _LONGEST_PAUSE or not again or attempt == _TRIES - 1:
                break
            reply.wipe()
            time.sleep(pause)
        return reply

    def _exchange(self, method: str, path: str, body: Body | None) -> Reply:
        deadline = time.monotonic() + self.timeout
        token = self.token()
        connection, why = self._connected()
        if why:
            connection.close()
            raise SinkUnreachable(f"cannot reach {self._place()}: {why}", address=self.address)
        try:
            why = self._sent(connection, self._head(method, path, body), token, body)
            answer = why or receive(connection, method, deadline)
        finally:
            connection.close()
        if isinstance(answer, str):
            raise SinkUnreachable(f"{self._place()} gave no whole answer: {answer}", address=self.address)
        return answer

    def _place(self) -> str:
        parts = urlsplit(self.base_url)
        return f"{parts.scheme}://{parts.netloc}"

    def _connected(self) -> tuple[HTTPConnection, str]:
        """A connection, and why it is not open."""
        parts = urlsplit(self.base_url)
        host, port = parts.hostname or "", parts.port
        if parts.scheme == "http":
            connection = HTTPConnection(host, port, timeout=self.timeout)
        elif proxy := _proxy_for(host, self.address):
            connection = HTTPSConnection(proxy.host, proxy.port, timeout=self.timeout, context=self.context())
            connection.set_tunnel(host, port or 443, proxy.headers())
        else:
            connection = HTTPSConnection(host, port, timeout=self.timeout, context=self.context())
        try:
            connection.connect()
        except (OSError, HTTPException) as error:
            return connection, _why(error)
        return connection, ""

    def _head(self, method: str, path: str, body: Body | None) -> bytes:
        parts = urlsplit(self.base_url)
        lines = [
            f"{method} {parts.path.rstrip('/')}{path} HTTP/1.1",
            f"Host: {parts.netloc}",
            "Accept-Encoding: identity",
            "User-Agent: lamplighter-keys",
            "Connection: close",
            *(f"{name}: {text}" for name, text in ({"Accept": "application/json"} | dict(self.headers)).items()),
        ]
        if body is not None:
            lines += [f"Content-Type: {body.content_type}", f"Content-Length: {len(body)}"]
        elif method not in ("GET", "DELETE"):
            lines.append("Content-Length: 0")
        return "\r\n".join([*lines, self.header]).encode("ascii")

    def _sent(self, connection: HTTPConnection, head: bytes, token: Secret, body: Body | None) -> str:
        """Why it could not be sent, empty when it was."""
        start = len(head) + len(token.reveal()) + 4
        # Made at its full length: growing would leave copies behind.
        request = bytearray(start + (0 if body is None else len(body)))
        try:
            request[: len(head)] = head
            request[len(head) : start] = token.reveal().encode("ascii") + b"\r\n\r\n"
            if body is not None:
                with body.reveal() as view:
                    request[start:] = view
            connection.sock.sendall(request)
        except OSError as error:
            return _why(error)
        finally:
            wipe(request)
        return ""

    def _error(self, reply: Reply, body: Body | None) -> SinkError:
        status = reply.status
        pause = _pause(reply, _TRIES)
        kind = _kind(status) if pause is None else SinkUnreachable
        known = _object(reply) or {}
        about = [
            f"{word} {said}"
            for word, form, said in (
                ("code", _CODE, _code(known)),
                ("request", _ID, reply.headers.get(self.request_id, "")),
            )
            if form.fullmatch(said) and not self._sent_by_us(said, body)
        ]
        text = f"HTTP {status}" + (f" ({', '.join(about)})" if about else "")
        if pause is not None:
            text += ": the store is busy" + (f", and says to wait {pause:.0f} s" if pause > _LONGEST_PAUSE else "")
        elif 300 <= status < 400:
            text += ": it is elsewhere now; write its present name, or the API's present address"
        return kind(text, address=self.address, status=status, hint=self.hints.get(status))

    def _sent_by_us(self, said: str, body: Body | None) -> bool:
        """Whether some of it is a piece of the token or of what the body has."""
        pieces = [said[at : at + _PIECE] for at in range(max(1, len(said) - _PIECE + 1))]
        token = self.token().reveal()
        return any(piece in token or (body is not None and body.holds(piece.encode())) for piece in pieces)


# What answers mean


def _kind(status: int) -> type[SinkError]:
    if status in (401, 403, 407):
        return SinkRefused
    if status in (404, 410):
        return SinkNotFound
    return SinkUnreachable if status >= 500 or status in (408, 429) else SinkError


def _code(known: Mapping[str, Any]) -> str:
    """The store's own code, wherever stores have it; empty when there is none."""
    listed = known.get("errors")
    for holder in (known, known.get("error"), listed[0] if isinstance(listed, list) and listed else None):
        if isinstance(holder, dict) and isinstance(found := holder.get("code"), (str, int)):
            return str(found)
    return ""


def _pause(reply: Reply, attempt: int) -> float | None:
    """Seconds that a busy store wants us to wait; None for one that is not busy."""
    said = reply.headers.get("retry-after", "")
    # GitHub says that the rate is too high with 403.
    limited = reply.status == 403 and (said or reply.headers.get("x-ratelimit-remaining") == "0")
    if reply.status not in _BUSY and not limited:
        return None
    if said.isdigit():
        return float(said[:9])
    at, now = _date(said), date_of(reply.headers) or datetime.now(UTC)
    return max(0.0, (at - now).total_seconds()) if at else 0.25 * 2**attempt


def date_of(headers: Mapping[str, str]) -> datetime | None:
    """The `Date` of an answer."""
    return _date(headers.get("date", ""))


def _date(text: str) -> datetime | None:
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def time_of(said: object) -> datetime | None:
    """A time in ISO 8601 with its zone, as stores write it; None for anything else."""
    try:
        at = datetime.fromisoformat(said) if isinstance(said, str) else None
    except ValueError:
        return None
    return at if at is not None and at.tzinfo else None


def _why(error: Exception) -> str:
    """In words of ours or of the operating system; the text of others may hold anything."""
    if isinstance(error, TimeoutError):
        return "it took too long"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return "no TLS connection"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    status = re.match(r"Tunnel connection failed: (\d{3})", str(error))
    return f"the proxy answers HTTP {status[1]}" if status else type(error).__name__


# Where a store is


def check_url(url: str, address: str) -> None:
    """Raises PolicyError for what is no base URL, SinkUnsafe for http to anything but this machine."""
    form = f"{url!r} is no address of an API: write https://HOST/PATH"
    try:
        parts = urlsplit(url)
        well_formed = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1)
    except ValueError:
        well_formed = False
    if not well_formed or parts.username is not None or parts.query or parts.fragment or not url.isascii():
        raise PolicyError(form if "@" not in url else "the address of an API has no password in it")
    if re.search(r"[\x00-\x20\x7f]", url):
        raise PolicyError(form)
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        raise SinkUnsafe("a value goes over http to this machine alone: write https", address=address)


def is_loopback(host: str) -> bool:
    """Whether `host` names this machine, without asking a resolver."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Proxy:
    host: str
    port: int
    credentials: Secret | None

    def headers(self) -> dict[str, str]:
        if self.credentials is None:
            return {}
        return {"Proxy-Authorization": "Basic " + b64encode(self.credentials.reveal().encode()).decode()}


def _proxy_for(host: str, address: str) -> _Proxy | None:
    """What the environment says (HTTPS_PROXY, NO_PROXY). Values go through it encrypted."""
    proxies = getproxies_environment()
    url = proxies.get("https") or proxies.get("all")
    if not url or is_loopback(host) or proxy_bypass(host):
        return None
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        port = parts.port or 80
    except ValueError:
        parts, port = urlsplit(""), 0
    if parts.scheme != "http" or not parts.hostname:
        raise SinkError("HTTPS_PROXY has to be like http://HOST:PORT", address=address)
    credentials = None
    if parts.username is not None:
        credentials = Secret(f"{unquote(parts.username)}:{unquote(parts.password or '')}")
    return _Proxy(host=parts.hostname, port=port, credentials=credentials)


def path_of(*parts: str | int) -> str:
    """`/a/b/c`, each part escaped, a slash within it too."""
    return "".join(f"/{quote(str(part), safe='')}" for part in parts)


# Credentials and addresses


def secret_of(text: str, source: str, address: str) -> Secret:
    """A token that a header can hold. Raises SinkRefused, which names `source` alone."""
    token = text.strip()
    if _TOKEN.fullmatch(token):
        return Secret(token)
    raise SinkRefused(f"{source} holds no token", address=address)


def token_from_environment(names: Iterable[str], address: str, *, hint: str | None = None) -> Secret:
    """From the first of these variables that is set. Raises SinkRefused."""
    wanted = tuple(names)
    for name in wanted:
        if os.environ.get(name):
            return secret_of(os.environ[name], name, address)
    raise SinkRefused("there is no token", address=address, hint=hint or f"set {' or '.join(wanted)}")


def split_address(
    address: str, options: Mapping[str, str], known: frozenset[str] = frozenset()
) -> tuple[str, str, dict[str, str]]:
    """Kind, place and options of `KIND:PLACE?NAME=TEXT&...`, where the options may also be given beside it.

    What tells two secrets of one store apart has to be in the address, because equal addresses are equal sinks.
    """
    kind, _, rest = address.partition(":")
    place, mark, query = rest.partition("?")
    written: dict[str, str] = {}
    for name, text in parse_qsl(query, keep_blank_values=True):
        if name in written:
            raise PolicyError(f"{address!r} has the option {name!r} twice")
        written[name] = text
    if (mark and not written) or any(options.get(name, text) != text for name, text in written.items()):
        raise PolicyError(f"{address!r} and its options contradict each other: write each option once")
    merged = {**options, **written}
    no_options(f"{kind}:{place}", merged, known)
    return kind, place, merged


def join_address(kind: str, place: str, options: Mapping[str, str | None]) -> str:
    """The canonical address; options that are None are left out."""
    query = urlencode(sorted((name, text) for name, text in options.items() if text is not None), safe=":/,*")
    return f"{kind}:{place}" + (f"?{query}" if query else "")
