"""Neon, sinks and a journal in memory, that can end a rotation between any two steps, and watch it meanwhile."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from lamplighter.keys import records as rec
from lamplighter.keys.errors import MintUnknown, NeonFailed, NotProven
from lamplighter.keys.fold import State, apply
from lamplighter.keys.journal import Journal
from lamplighter.keys.naming import Naming
from lamplighter.keys.neon import Identity, KeyServer, MintedKey
from lamplighter.keys.plan import LiveKey
from lamplighter.keys.records import Record, Scope, SinkRef
from lamplighter.keys.rotate import Clock, Outcome, Rotation
from lamplighter.keys.sinks.base import Capabilities, Receipt, Sink
from lamplighter.keys.value import KeyBuffer

LINEAGE = "ci"
PERSONAL = Scope(kind="personal")
START = datetime(2026, 1, 1, tzinfo=UTC)


class Crash(BaseException):
    """The process is no more."""


@dataclass
class World:
    """What outlives a process, and what was seen to be wrong. Key 1 is the minter's, key 2 is in all sinks."""

    live: dict[int, str] = field(default_factory=lambda: {1: "the minter", 2: "made by hand"})
    values: dict[int, bytes] = field(default_factory=lambda: {1: b"value-1", 2: b"value-2"})
    used: dict[int, str] = field(default_factory=dict)
    contents: dict[str, bytes] = field(default_factory=dict)
    records: list[Record] = field(default_factory=list)
    posted: list[str] = field(default_factory=list)
    drops: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    #: Steps that are left to this process; None: as many as it likes.
    left: int | None = None
    #: The step at which this process ends.
    stop: str | None = None
    seconds: float = 0.0
    #: Somebody else may take keys away: then the sinks need not hold a working one at every moment.
    alone: bool = True

    def step(self, what: str) -> None:
        """Between any two of these a process may end."""
        self.watch(what)
        if self.stop == what:
            raise Crash
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise Crash

    def state(self) -> State:
        state = State()
        for record in self.records:
            state = apply(state, record)
        return state

    def key_in(self, address: str) -> int | None:
        return next((key for key, value in self.values.items() if value == self.contents.get(address)), None)

    def watch(self, what: str) -> None:
        if not self.alone:
            return
        for address in self.contents:
            if self.key_in(address) not in self.live:
                self.wrong.append(f"{what}: {address} holds key {self.key_in(address)}, which is not live")
        for address, ids in self.state().lineage(LINEAGE).may_hold.items():
            if not ids <= set(self.live):
                self.wrong.append(f"{what}: {address} may hold {sorted(ids - set(self.live))}, not live")
        if len(set(self.posted)) < len(self.posted):
            self.wrong.append(f"{what}: one name was asked for twice")


class SimNeon(KeyServer):
    settle = 30.0

    def __init__(self, world: World, own: int = 1) -> None:
        self.world = world
        self.own = own

    def mint(self, scope: Scope, name: str) -> MintedKey:
        world = self.world
        world.step("before POST")
        world.posted.append(name)
        key_id = max(world.values) + 1
        world.live[key_id], world.values[key_id] = name, f"value-{key_id}".encode()
        world.step("after POST")
        if "POST" in world.drops:
            world.drops.remove("POST")
            raise MintUnknown
        return MintedKey(key_id=key_id, project_id=scope.project_id, value=KeyBuffer(bytearray(world.values[key_id])))

    def list(self, scope: Scope) -> Mapping[int, LiveKey]:
        return {
            key: LiveKey(id=key, name=name, last_used_at=self.world.used.get(key), last_used_from=("192.0.2.7",))
            for key, name in self.world.live.items()
        }

    def revoke(self, scope: Scope, key_id: int) -> bool:
        world = self.world
        world.step("before DELETE")
        there = world.live.pop(key_id, None) is not None
        world.step("after DELETE")
        if "DELETE" in world.drops:
            world.drops.remove("DELETE")
            raise NeonFailed
        return there

    def identity(self) -> Identity:
        return Identity(account_id="somebody", method="api_key_user")

    def check(self, scope: Scope, key_id: int, value: KeyBuffer) -> Identity:
        return self.try_key(value)

    def try_key(self, value: KeyBuffer) -> Identity:
        with value.reveal() as view:
            if bytes(view) not in {self.world.values[key] for key in self.world.live}:
                raise NotProven
        return self.identity()

    def mac(self, salt: bytes) -> str | None:
        with KeyBuffer(bytearray(self.world.values[self.own])) as value:
            return value.mac(salt)

    def sign_in(self, value: KeyBuffer) -> SimNeon:
        with value.reveal() as view:
            own = next(key for key, known in self.world.values.items() if known == bytes(view))
        return SimNeon(self.world, own)


class SimSink(Sink):
    kind = "sim"

    def __init__(self, world: World, address: str) -> None:
        self.world = world
        self.address = address

    @classmethod
    def parse(cls, address: str, options: Mapping[str, str]) -> Self:
        raise NotImplementedError

    def describe(self) -> str:
        return self.address

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(readable=self.address.startswith("R"), effect="at once", soak=0)

    def check(self) -> str:
        return "it is there"

    def write(self, value: KeyBuffer, marker: str) -> Receipt:
        self.world.step("before a write")
        with value.reveal() as view:
            self.world.contents[self.address] = bytes(view)
        self.world.step("after a write")
        return Receipt(version=self.world.contents[self.address].decode())

    def read_back(self) -> KeyBuffer | None:
        content = self.world.contents.get(self.address)
        return KeyBuffer(bytearray(content)) if content and self.capabilities.readable else None

    def metadata(self) -> Receipt | None:
        content = self.world.contents.get(self.address)
        return Receipt(version=content.decode()) if content else None

    def delete(self) -> None:
        self.world.contents.pop(self.address, None)


class SimJournal(Journal):
    """Keeps its lines in the world."""

    def __init__(self, world: World) -> None:
        super().__init__(Path("nowhere"))
        self.world = world
        self.salt = b"salt"
        self.records = world.records
        self.state = world.state()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        return

    @contextmanager
    def released(self) -> Iterator[None]:
        yield

    def append(self, record: Record) -> None:
        state = apply(self.state, record)
        self.world.step(f"before {record.kind}")
        self.world.records.append(record)
        self.world.step(f"after {record.kind}")
        self.state = state


def adopted(world: World, addresses: list[str], *, scope: Scope = PERSONAL) -> None:
    """Key 2 is in all these sinks."""
    for address in addresses:
        world.contents[address] = world.values[2]
    with KeyBuffer(bytearray(world.values[2])) as value:
        mac = value.mac(b"salt")
    sinks = tuple(SinkRef(each) for each in addresses)
    world.records.append(
        rec.Adopted(at=START, lineage=LINEAGE, key_id=2, name=world.live[2], scope=scope, sinks=sinks, mac=mac)
    )


def rotation(world: World, addresses: list[str], *, soak: float = 0.0, **options: object) -> Rotation:
    """A rotation in a process of its own: it knows what is in the world, and nothing else."""

    def sleep(seconds: float) -> None:
        world.seconds += seconds

    clock = Clock(now=lambda: START + timedelta(seconds=world.seconds), monotonic=lambda: world.seconds, sleep=sleep)
    settings = {
        "scope": PERSONAL,
        "sinks": [SimSink(world, each) for each in addresses],
        "soak": soak,
        "resolve": lambda ref: SimSink(world, ref.address),
        "clock": clock,
        **options,
    }
    return Rotation(SimNeon(world), SimJournal(world), Naming(LINEAGE), **settings)


def go(
    world: World,
    addresses: list[str],
    mode: str = "run",
    *,
    left: int | None = None,
    stop: str | None = None,
    **options: object,
) -> bool:
    """Run or recover; whether the process came to its end."""
    world.left, world.stop = left, stop
    one = rotation(world, addresses, **options)
    try:
        one.run() if mode == "run" else one.recover()
    except Crash:
        return False
    finally:
        world.left = world.stop = None
    return True


def finish(world: World, addresses: list[str], **options: object) -> Outcome:
    return rotation(world, addresses, **options).recover()
