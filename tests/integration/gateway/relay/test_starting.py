"""Which relay is started, and what is said when none starts."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest
import uvloop

from lamplighter.gateway.relaying import Ended, Relay, RelayFailed, command, program


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
