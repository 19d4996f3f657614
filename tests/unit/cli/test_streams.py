"""Streams whose reader has gone."""

from __future__ import annotations

import os

from lamplighter.cli.streams import Forgiving


def test_a_closed_reader_is_forgiven() -> None:
    """Also at the flush that follows."""
    reader, writer = os.pipe()
    os.close(reader)
    raw = os.fdopen(writer, "wb", buffering=0)
    stream = open(raw.fileno(), "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - it cannot be closed
    forgiving = Forgiving(stream)
    assert forgiving.write("x" * 100_000) == 100_000
    forgiving.flush()
    assert forgiving.encoding == "utf-8"
    raw.close()
    # What could not be written is still in the stream's buffer, and must not be tried once more.
    stream.detach()


def test_what_can_be_written_is() -> None:
    reader, writer = os.pipe()
    with os.fdopen(writer, "w", encoding="utf-8") as stream:
        Forgiving(stream).write("hello")
        Forgiving(stream).flush()
    with os.fdopen(reader, encoding="utf-8") as stream:
        assert stream.read() == "hello"
