"""A store that leaks in every way that the tests look for: what shows that they can fail.

`leaky:PATH` keeps the value in a file, as it should. Found by an entry point, as a store of others is.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from lamplighter.keys.errors import SinkError
from lamplighter.keys.sinks.base import Capabilities, Receipt, Sink
from lamplighter.keys.value import KeyBuffer

#: The file that each way of leaking into files leaves, below the home.
FILES = {"plain.txt", "base64.txt", "backwards.txt", "url.txt", "piece.txt"}


class LeakySink(Sink):
    kind = "leaky"

    def __init__(self, path: Path, *, fails: bool = False) -> None:
        self.path = path
        self.fails = fails

    @classmethod
    def parse(cls, address: str, options: Mapping[str, str]) -> Self:
        return cls(Path(address.partition(":")[2]))

    def describe(self) -> str:
        return f"leaky:{self.path}"

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(readable=True, effect="at once", soak=0)

    def check(self) -> str:
        return "it is there"

    def write(self, value: KeyBuffer, marker: str) -> Receipt:
        with value.reveal() as view:
            text = bytes(view).decode()
        logging.getLogger("leaky").debug("keeping %s", text)
        if self.fails:
            raise SinkError("cannot keep it", address=self.describe())
        home = Path(os.environ["HOME"])
        (home / "plain.txt").write_text(f"the key is {text}")
        (home / "base64.txt").write_bytes(b64encode(b"x" + text.encode() + b"x"))
        (home / "backwards.txt").write_text(text[::-1])
        (home / "url.txt").write_text("".join(f"%{ord(letter):02X}" for letter in text))
        (home / "piece.txt").write_text(f"ends with {text[-12:]}")
        unlinked = Path(os.environ["TMPDIR"]) / "unlinked.txt"
        unlinked.write_text(text)
        unlinked.unlink()
        subprocess.run(["sh", "-c", "sleep 1", text], check=True)
        subprocess.run(["sh", "-c", "sleep 1"], env={"PATH": os.environ["PATH"], "KEY": text}, check=True)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as away:
            away.sendto(text.encode(), ("127.0.0.1", 9))
        sys.stderr.write(f"kept {text}\n")
        self.path.write_text(text)
        self.path.chmod(0o600)
        return Receipt()

    def read_back(self) -> KeyBuffer | None:
        return KeyBuffer(bytearray(self.path.read_bytes())) if self.path.exists() else None

    def metadata(self) -> Receipt | None:
        return Receipt() if self.path.exists() else None

    def delete(self) -> None:
        self.path.unlink(missing_ok=True)


def installed_in(directory: Path) -> dict[str, str]:
    """The environment in which the store is found: as if its distribution were installed."""
    about = directory / "leaky-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: leaky\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[lamplighter.sinks]\nleaky = {__name__}:LeakySink\n")
    return {"PYTHONPATH": os.pathsep.join([str(directory), str(Path(__file__).parents[2])])}
