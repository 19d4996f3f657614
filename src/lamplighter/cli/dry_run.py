"""`--dry-run`: requests that read are sent, as they resolve names; what would change something is printed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import httpx2

from lamplighter.cli.harmless import clean
from lamplighter.cli.output import json_text, redact, write, yaml_text
from lamplighter.cli.planned import Planned

if TYPE_CHECKING:
    from lamplighter.cli.session import Session

_READING = frozenset({"GET", "HEAD", "OPTIONS"})


class OnlyReading(httpx2.HTTPTransport):
    """Raises `Planned` instead of sending what may change something."""

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        if request.method in _READING:
            return super().handle_request(request)
        raise Planned(request.method, str(request.url), request.read(), request.headers.get("content-type", ""))


def described(planned: Planned) -> dict[str, Any]:
    """The request for programs, without secrets. Pure."""
    return {"method": planned.method, "url": planned.url, "body": redact(_body(planned))}


def _body(planned: Planned) -> Any:
    if not planned.body:
        return None
    try:
        return json.loads(planned.body)
    except ValueError:
        return f"{len(planned.body)} bytes of {planned.content_type or 'an unknown kind'}"


def text_of(planned: Planned) -> str:
    """The request for people. Pure."""
    facts = described(planned)
    body = "" if facts["body"] is None else json_text(facts["body"])
    return f"{planned.method} {clean(planned.url)}\n{body}"


def show(session: Session, planned: Planned) -> None:
    """Print what would have been sent."""
    every = (planned, *planned.following)
    session.note(f"Nothing was changed. {'These requests' if len(every) > 1 else 'This request'} would be sent:")
    requests = {"requests": [described(one) for one in every]}
    match session.output:
        case "json":
            write(json_text(requests))
        case "yaml":
            write(yaml_text(requests))
        case _:
            write("".join(map(text_of, every)))
