"""Which relay is started, and what is said when none starts."""

from __future__ import annotations

import asyncio
import errno
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import uvloop

from lamplighter.compute.user import SystemUser
from lamplighter.gateway import relay_fallback
from lamplighter.gateway.errors import RelayFailed
from lamplighter.gateway.relay_protocol import HEADER
from lamplighter.gateway.relaying import Ended, Relay, command, program

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer


async def test_a_program_that_is_not_there() -> None:
    with pytest.raises(RelayFailed, match=r"/nowhere/relay did not start: .*No such file"):
        await Relay.start(["/nowhere/relay"])


async def test_a_program_that_is_no_relay() -> None:
    """It ends, or says nothing: both are told, and it is not left behind."""
    with pytest.raises(RelayFailed, match="did not say that it is ready"):
        await Relay.start(["true"])
    with pytest.raises(RelayFailed, match="did not say that it is ready"):
        await Relay.start([sys.executable, "-c", "import sys, os; os.read(int(sys.argv[1]), 100)"], within=0.5)


async def test_the_choice(monkeypatch: pytest.MonkeyPatch, compiled: Path) -> None:
    """The compiled one if it is there; a setting names the other, or a program elsewhere."""
    monkeypatch.delenv("LAMP_RELAY", raising=False)
    assert program() is None or command() == [str(program())]
    monkeypatch.setenv("LAMP_RELAY", "python")
    assert command() == [sys.executable, "-m", "lamplighter.gateway.relay_fallback"]
    relay = await Relay.start()
    assert relay.kind == "python"
    await relay.close()
    monkeypatch.setenv("LAMP_RELAY", str(compiled))
    relay = await Relay.start()
    assert relay.kind == "compiled"
    await relay.close()


def shown(pid: int) -> tuple[dict[str, list[str]], int]:
    """What /proc says of a process, and who the owner of its environment is."""
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    told = {name: value.split() for name, _, value in (line.partition(":") for line in status)}
    return told, Path(f"/proc/{pid}/environ").stat().st_uid


@pytest.mark.root
@pytest.mark.parametrize("kind", ["compiled", "python"])
async def test_one_of_roots_becomes_another_user(
    kind: str, compiled: Path, fallback: list[str], owner: SystemUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For good, once it has its files; nobody of that user may look into it, and root knows it by that."""
    argv = [str(compiled)] if kind == "compiled" else fallback
    monkeypatch.delenv("LAMP_RELAY_USER", raising=False)
    of_root = await Relay.start(argv)
    await of_root.close()
    monkeypatch.setenv("LAMP_RELAY_USER", f"{owner.uid}:{owner.gid}")
    relay = await Relay.start(argv)
    told, owner_of_environment = shown(relay.pid)
    assert told["Uid"] == [str(owner.uid)] * 4
    assert told["Gid"] == [str(owner.gid)] * 4
    assert told["Groups"] == []
    assert [int(told[name][0], 16) for name in ("CapPrm", "CapEff", "CapAmb")] == [0, 0, 0]
    assert owner_of_environment == 0
    assert relay.capacity == of_root.capacity
    (client, client_far), (backend, backend_far) = socket.socketpair(), socket.socketpair()
    with client, backend:
        relay.hand_over(1, client_far, backend_far, to_backend=b"here")
        assert await asyncio.to_thread(backend.recv, 100) == b"here"
    await relay.close()


@pytest.mark.root
@pytest.mark.parametrize("kind", ["compiled", "python"])
async def test_one_that_cannot_become_another_user_does_not_start(
    kind: str, compiled: Path, fallback: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rather than going on as root."""
    monkeypatch.setenv("LAMP_RELAY_USER", "4294967295:4294967295")
    with pytest.raises(RelayFailed, match="did not say that it is ready"):
        await Relay.start([str(compiled)] if kind == "compiled" else fallback)


class Full(socket.socket):
    """On a host that has no memory now."""

    full = True

    def send(self, data: Buffer, flags: int = 0, /) -> int:
        if self.full:
            raise OSError(errno.ENOBUFS, "no memory")
        return super().send(data, flags)


def test_a_report_waits_for_memory() -> None:
    """The one in Python keeps it as the compiled one does, and says it later."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, Full(fileno=theirs.detach()) as control:
        relay = relay_fallback.Relay(control, 60)
        relay.report(7, "ended", 1, 2)
        relay.send_reports()
        control.full = False
        relay.send_reports()
        ours.settimeout(30)
        assert HEADER.unpack_from(ours.recv(100))[4] == 7
        relay.poller.close()


def test_from_uvloop(compiled: Path) -> None:
    """The front's event loop: more connections than the control socket holds at once, counted, cut, and reported."""

    async def main() -> None:
        relay = await Relay.start([str(compiled)])
        closed: list[Ended] = []
        relay.on_closed(closed.append)
        far = []
        for number in range(600):
            (client, client_far), (backend, backend_far) = socket.socketpair(), socket.socketpair()
            relay.hand_over(number, client_far, backend_far, to_backend=b"x" * 1000)
            far += [client, backend]
            if number % 100 == 99:
                assert len(await relay.counters()) == number + 1
        assert set((await relay.counters()).values()) == {(1000, 0)}
        await relay.close()
        assert sorted(ended.id for ended in closed) == list(range(600))
        for end in far:
            end.close()

    uvloop.run(main())
