"""A store for the kill matrix: a file that can be read back (`plain:PATH`), or cannot (`sealed:PATH`)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from lamplighter.files import write_atomic
from lamplighter.keys.records import SinkRef
from lamplighter.keys.sinks.base import Capabilities, Receipt, Sink
from lamplighter.keys.value import KeyBuffer


class FileSink(Sink):
    kind = "plain"

    def __init__(self, path: Path, *, readable: bool) -> None:
        self.path = path
        self.readable = readable

    @classmethod
    def parse(cls, address: str, options: Mapping[str, str]) -> Self:
        kind, _, path = address.partition(":")
        return cls(Path(path), readable=kind == "plain")

    def describe(self) -> str:
        return f"{'plain' if self.readable else 'sealed'}:{self.path}"

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(readable=self.readable, effect="at once", soak=0)

    def check(self) -> str:
        return "it is there"

    def write(self, value: KeyBuffer, marker: str) -> Receipt:
        with value.reveal() as view:
            write_atomic(self.path, bytes(view))
        return self.metadata() or Receipt()

    def read_back(self) -> KeyBuffer | None:
        return KeyBuffer(bytearray(self.path.read_bytes())) if self.readable and self.path.exists() else None

    def metadata(self) -> Receipt | None:
        if not self.path.exists():
            return None
        facts = self.path.stat()
        return Receipt(
            version=f"{facts.st_ino}-{facts.st_mtime_ns}",
            updated_at=datetime.fromtimestamp(facts.st_mtime_ns / 1e9, UTC),
        )

    def delete(self) -> None:
        self.path.unlink(missing_ok=True)


def resolve(ref: SinkRef) -> Sink:
    return FileSink.parse(ref.address, {})
