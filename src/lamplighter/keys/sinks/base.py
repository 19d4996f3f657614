"""The port that every store of keys fulfils.

A sink is one place for one value: a secret of a repository, a line of a file. Drivers only ever see this class; a new
store is a subclass, named by an entry point of the group `lamplighter.sinks`, that passes the inherited contract test.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any, ClassVar, Final, Literal, Self

from lamplighter.keys.value import KeyBuffer

#: When a consumer sees the value that was written.
Effect = Literal["at once", "next read", "process restart", "next workflow run", "next deployment", "minutes"]

#: Seconds for which the old key stays alive beside the new one, by when consumers see the new one. A floor that a
#: policy raises: how often a process restarts or a workflow runs is the user's to know.
SOAK: Final[Mapping[Effect, int]] = MappingProxyType(
    {
        "at once": 60,
        "next read": 300,
        "minutes": 900,
        "process restart": 3600,
        "next workflow run": 3600,
        "next deployment": 3600,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a store can do. `soak` is in seconds: how long the old key should live on for this store's consumers."""

    readable: bool
    versioned: bool = False
    comment: bool = False
    effect: Effect
    soak: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What a store says of a secret, without the secret. `server_date` is the store's own clock at that moment."""

    version: str | None = None
    updated_at: datetime | None = None
    server_date: datetime | None = None

    def as_json(self) -> dict[str, Any]:
        """Times in ISO 8601; what is not known is left out."""
        known: dict[str, Any] = {} if self.version is None else {"version": self.version}
        for name, at in (("updated_at", self.updated_at), ("server_date", self.server_date)):
            if at is not None:
                known[name] = at.isoformat()
        return known

    @classmethod
    def from_json(cls, known: Mapping[str, Any]) -> Self:
        """The reverse of `as_json`. Raises ValueError, TypeError."""
        times = {name: datetime.fromisoformat(known[name]) for name in ("updated_at", "server_date") if name in known}
        version = known.get("version")
        return cls(version=None if version is None else str(version), **times)


class Sink(ABC):
    """One place that holds one key.

    Every method may raise SinkUnreachable, SinkRefused, SinkNotFound, SinkUnsafe or plain SinkError, and none of those
    holds the value or the body of an answer. Credentials of its own come from the store's usual environment or files,
    never from the address.
    """

    #: The word before the colon of an address; a module may have several classes or one that knows several words.
    kind: ClassVar[str]

    @classmethod
    @abstractmethod
    def parse(cls, address: str, options: Mapping[str, str]) -> Self:
        """The sink of an address such as `dotenv:PATH#NAME`, its kind included. Touches nothing.

        Raises PolicyError for an address or an option that cannot be meant: the message shows the right form.
        """

    @abstractmethod
    def describe(self) -> str:
        """The canonical address, without a secret. Equal addresses are equal sinks.

        `parse(describe(), options)` makes the same sink: that is how a rotation is resumed by another process.
        """

    @property
    def options(self) -> Mapping[str, str]:
        """What `parse` needs besides the address to make this sink again. Nothing secret: it is written down."""
        return {}

    @property
    @abstractmethod
    def capabilities(self) -> Capabilities:
        """What this store can do; known without asking it."""

    @abstractmethod
    def check(self) -> str:
        """A sentence that says that the store is there and lets us write. Changes nothing; raises SinkError if not."""

    @abstractmethod
    def write(self, value: KeyBuffer, marker: str) -> Receipt:
        """Put the value there, durably; what else is in the store stays.

        `marker` names the key and the rotation (`key 12, rotation 4kq...`), for stores that keep a comment. After an
        error the store may hold the new value or the old one.
        """

    @abstractmethod
    def read_back(self) -> KeyBuffer | None:
        """The value that a consumer would get now. None: this store cannot be read, or holds nothing there.

        The caller wipes it.
        """

    @abstractmethod
    def metadata(self) -> Receipt | None:
        """What the store says of the secret. None: there is no such secret."""

    def previous(self) -> KeyBuffer | None:
        """The value before the present one, where the store keeps it. The caller wipes it."""
        return None

    @abstractmethod
    def delete(self) -> None:
        """Remove the secret, as after a trial of the sink; nothing to remove is fine. No rotation ever calls this."""

    def close(self) -> None:  # noqa: B027 - most stores hold nothing open
        """Let go of connections."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sink) and self.describe() == other.describe()

    def __hash__(self) -> int:
        return hash(self.describe())

    def __repr__(self) -> str:
        return f"<{self.describe()}>"
