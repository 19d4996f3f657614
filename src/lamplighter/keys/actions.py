"""What a rotation can do next. Pure; each says in a sentence why, for people, logs and tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from lamplighter.keys.errors import KeysError
from lamplighter.keys.records import Record, Scope, SinkRef


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Look(Action):
    """List the live keys on Neon."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause(Action):
    """Wait for seconds that are part of the work."""

    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Note(Action):
    """Write this down, and do nothing else."""

    record: Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Mint(Action):
    """Write the intent down, ask Neon for the key once, write down what came."""

    rid: str
    name: str
    scope: Scope
    sinks: tuple[SinkRef, ...]
    soak: float
    smoke: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Check(Action):
    """Try the value in hand: does it work, and reach what it should and no more?"""

    rid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop(Action):
    """Wipe the value in hand: the rotation is undone, and `error` is raised when that is finished."""

    rid: str
    error: KeysError


@dataclass(frozen=True, slots=True, kw_only=True)
class Read(Action):
    """Read these sinks, to see which key each holds."""

    rid: str
    sinks: tuple[SinkRef, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Take(Action):
    """Take the value from this sink, which holds it."""

    rid: str
    sink: SinkRef


@dataclass(frozen=True, slots=True, kw_only=True)
class Store(Action):
    """Write the value in hand to this sink."""

    rid: str
    key_id: int
    sink: SinkRef


@dataclass(frozen=True, slots=True, kw_only=True)
class Verify(Action):
    """Prove that every sink has the key, as far as each can be asked, and that it works."""

    rid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Soak(Action):
    """Wait for the end of the soak, or leave it to a later run."""

    rid: str
    until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class SignIn(Action):
    """Use the new key from here on: the old one, which is about to go, is our own. `sink` is where it can be read."""

    rid: str
    sink: SinkRef | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Revoke(Action):
    """Write the intent down, delete this key, write down that it is gone."""

    rid: str | None
    key_id: int
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop(Action):
    """Nothing more can be done now: write `record` down, where there is one, and raise `error`."""

    error: KeysError
    record: Record | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish(Action):
    """There is nothing left to do. `foreign` are live keys with our name that this journal does not know."""

    foreign: Mapping[int, str]
