"""How `lamp api` prints what a server answered, and how it follows pages."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from lamplighter.cli.errors import USAGE, Failure
from lamplighter.cli.harmless import clean
from lamplighter.cli.output import at, columns_of, json_text, rendered, screen_of, write

if TYPE_CHECKING:
    from lamplighter.cli.api import Call
    from lamplighter.cli.session import Session
    from lamplighter.client.payload import RawResponse


def show(session: Session, answer: RawResponse[Any], *, include: bool) -> None:
    """Print an answer: as it came where nobody looks, harmless and indented on a terminal."""
    if include:
        headers = "".join(f"{clean(name)}: {clean(value)}\n" for name, value in answer.headers.items())
        write(f"HTTP {answer.status}\n{headers}\n")
    content = answer.content
    if not content:
        return
    try:
        value = json.loads(content)
    except ValueError:
        _show_other(content)
        return
    if session.output == "json" and not sys.stdout.isatty():
        _write_bytes(content if content.endswith(b"\n") else content + b"\n")
    else:
        show_value(session, value)


def show_value(session: Session, value: Any) -> None:
    """Print a JSON value in the form that was asked for."""
    if session.output in ("json", "yaml"):
        write(rendered(value, (), output=session.output, screen=screen_of(sys.stdout)))
        return
    items = items_of(value)
    columns = columns_of(items if isinstance(items, list) else [items])
    write(rendered(items, columns, output=session.output, screen=screen_of(sys.stdout)))


def items_of(value: Any) -> Any:
    """What a table shows of an answer: its only list of objects, its only object, else all of it. Pure."""
    if not isinstance(value, dict):
        return value
    lists = [each for each in value.values() if isinstance(each, list)]
    objects = [each for each in value.values() if isinstance(each, dict)]
    if len(lists) == 1:
        return lists[0]
    return objects[0] if len(value) == 1 and objects else value


def _show_other(content: bytes) -> None:
    if not sys.stdout.isatty():
        _write_bytes(content)
        return
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise Failure(f"the answer is {len(content)} bytes of no text", hint="send it into a file with >") from None
    write("".join(f"{clean(line)}\n" for line in text.splitlines()))


def _write_bytes(content: bytes) -> None:
    sys.stdout.flush()
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()


# Pages


def follow(session: Session, call: Call) -> None:
    """Read a list page by page, and print it as one answer without a cursor."""
    from lamplighter.client.names import PLACES  # noqa: PLC0415 - for pages only

    paged = PLACES[call.operation.id][1].paged if call.operation is not None else None
    if paged is None or not call.operation or not call.operation.safe:
        raise Failure("this is no list that has pages", hint="leave out --paginate", status=USAGE)
    pages: list[Any] = []
    seen: set[str] = set(call.query.get("cursor", ()))
    query = dict(call.query)
    while True:
        page = json.loads(session.neon.request(call.method, call.path, query=query).content)
        items = page if paged.items is None else at(page, paged.items)
        if items or not pages:
            pages.append(page)
        cursor = at(page, paged.cursor) if paged.cursor is not None else None
        if not items or not isinstance(cursor, str) or cursor in seen:
            break
        seen.add(cursor)
        query["cursor"] = [cursor]
    value = joined(pages)
    if session.output == "json":
        write(json_text(value))
    else:
        show_value(session, value)


def joined(pages: list[Any]) -> Any:
    """Several pages as one: lists one after the other, objects put together, and no cursor. Pure."""
    if not all(isinstance(page, dict) for page in pages):
        return [item for page in pages for item in page]
    whole: dict[str, Any] = {}
    for page in pages:
        for name, value in page.items():
            if name == "pagination":
                continue
            before = whole.get(name)
            if isinstance(before, list) and isinstance(value, list):
                whole[name] = [*before, *value]
            elif isinstance(before, dict) and isinstance(value, dict):
                whole[name] = before | value
            else:
                whole[name] = value
    return whole
