"""What an error shows of a secret: in its text, its attributes, its chain, in logs, in tracebacks that print locals."""

from __future__ import annotations

import io
import logging
import traceback
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from urllib.parse import quote_from_bytes

from rich.traceback import Traceback

#: So many bytes in a row of a secret are a leak.
PIECE = 8


def forms(secret: bytes) -> Iterator[bytes]:
    """Every piece of a secret as it is, in Base64 at each offset, escaped for a URL, in hex, backwards."""
    whole = [secret, secret[::-1], secret.hex().encode(), quote_from_bytes(secret).encode()]
    # Of each offset, what does not depend on the bytes around it.
    whole += [b64encode(secret[start:])[:-4] for start in range(3)]
    for form in whole:
        for at in range(max(1, len(form) - PIECE + 1)):
            yield form[at : at + PIECE]


def leaks(text: str, *secrets: bytes) -> bool:
    content = text.encode("utf-8", "surrogateescape")
    return any(piece in content for secret in secrets for piece in forms(secret))


def shown(error: BaseException) -> str:
    """All that is ever shown of an error, from the first frame that is not a test's own."""
    inner = error.__traceback__
    while inner is not None and "lamplighter" not in inner.tb_frame.f_globals["__name__"].split("."):
        inner = inner.tb_next
    parts = [str(error), repr(error), repr(error.__dict__), repr(error.args)]
    assert inner is not None
    for each in (error, error.__cause__, error.__context__):
        if each is not None:
            parts += [*traceback.format_exception(type(each), each, inner), repr(vars(each)), _rich(each, inner)]
    capturing = traceback.TracebackException(type(error), error, inner, capture_locals=True)
    return "\n".join([*parts, *capturing.format()])


def _rich(error: BaseException, inner: TracebackType) -> str:
    """The locals as rich prints them, without its colouring of the source, which takes most of the time."""
    trace = Traceback.extract(
        type(error), error, inner, show_locals=True, locals_max_length=1000, locals_max_string=100_000
    )
    frames = [frame for stack in trace.stacks for frame in stack.frames]
    return "\n".join(f"{name} = {node}" for frame in frames for name, node in (frame.locals or {}).items())


@contextmanager
def logged() -> Iterator[io.StringIO]:
    """What all loggers say, at DEBUG, as a handler of the root would print it."""
    stream, root = io.StringIO(), logging.getLogger()
    handler, level = logging.StreamHandler(stream), root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        yield stream
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
