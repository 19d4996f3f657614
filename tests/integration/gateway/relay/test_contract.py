"""What a relay does, be it compiled or Python: one suite, inherited by both."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import random
import resource
import select
import signal
import socket
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lamplighter.gateway.errors import RelayGone
from lamplighter.gateway.relay_protocol import CLOSED, COUNTERS, CUT, HANDOVER, HEADER, INITIAL, READY, REASONS
from lamplighter.gateway.relaying import Ended
from support.waiting import eventually

from .conftest import PATIENCE, Bench, Benches, files_of, reset

#: Says who it is, hands one connection over, and waits for its end.
FRONT = """
import asyncio, socket, sys
from lamplighter.gateway.relaying import Relay

async def main():
    relay = await Relay.start(sys.argv[3:])
    relay.hand_over(1, socket.socket(fileno=int(sys.argv[1])), socket.socket(fileno=int(sys.argv[2])))
    await relay.counters()
    print(relay.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""

chunks = st.lists(st.tuples(st.booleans(), st.binary(min_size=1, max_size=200_000)), max_size=8)


class RelayContract:
    #: KiB of its own memory that an idle connection may cost.
    idle_kib: float

    @given(chunks=chunks, first=st.binary(max_size=INITIAL), back=st.binary(max_size=INITIAL))
    @settings(
        max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors]
    )
    async def test_what_goes_in_comes_out(self, bench: Bench, chunks: Any, first: bytes, back: bytes) -> None:
        """Any bytes, in any pieces, in either direction, after any first ones; and they are counted."""
        ends = bench.open(to_backend=first, to_client=back)
        for to_backend, content in chunks:
            sender, receiver = (ends.client, ends.backend) if to_backend else (ends.backend, ends.client)
            expected = (first if to_backend else back) + content
            first, back = (b"", back) if to_backend else (first, b"")
            got, _ = await asyncio.gather(ends.read(receiver, len(expected)), ends.send(sender, content))
            assert got == expected
        assert await ends.read(ends.backend, len(first)) == first
        assert await ends.read(ends.client, len(back)) == back
        ends.close()
        ended = await bench.ended(ends)
        assert ended.reason == "ended"

    async def test_counts_exactly(self, bench: Bench) -> None:
        """While it is open and at its end, the first bytes included."""
        ends, idle = bench.open(to_backend=b"12345", to_client=b"123"), bench.open()
        assert await ends.read(ends.backend, 5) == b"12345"
        assert await ends.read(ends.client, 3) == b"123"
        await ends.pass_on(b"a" * 1000, b"b" * 300_000)
        assert await bench.relay.counters() == {ends.number: (1005, 300_003), idle.number: (0, 0)}
        ends.close()
        assert await bench.ended(ends) == Ended(ends.number, 1005, 300_003, "ended")
        assert await bench.relay.counters() == {idle.number: (0, 0)}

    async def test_both_directions_at_once(self, bench: Bench) -> None:
        """Many megabytes each way arrive whole, though both are far more than what sockets hold."""
        ends = bench.open()
        there, back = random.Random(1).randbytes(16_000_000), random.Random(2).randbytes(16_000_000)
        _, _, got_there, got_back = await asyncio.gather(
            ends.send(ends.client, there),
            ends.send(ends.backend, back),
            ends.read(ends.backend, len(there)),
            ends.read(ends.client, len(back)),
        )
        assert hashlib.sha256(got_there).digest() == hashlib.sha256(there).digest()
        assert hashlib.sha256(got_back).digest() == hashlib.sha256(back).digest()

    @pytest.mark.parametrize("first", ["client", "backend"])
    async def test_half_close(self, bench: Bench, first: str) -> None:
        """Whoever says that it has finished is still told all that the other one has to say."""
        ends = bench.open()
        sender, receiver = (ends.client, ends.backend) if first == "client" else (ends.backend, ends.client)
        await ends.send(sender, b"the last")
        sender.shutdown(socket.SHUT_WR)
        assert await ends.read(receiver, 100) == b"the last"
        await ends.send(receiver, b"answer")
        assert await ends.read(sender, 6) == b"answer"
        assert ends.number not in bench.closed
        receiver.shutdown(socket.SHUT_WR)
        assert await ends.read(sender, 1) == b""
        assert (await bench.ended(ends)).reason == "ended"

    async def test_an_end_of_file_waits_for_what_came_before(self, bench: Bench) -> None:
        """A backend sends more than the client takes, and closes: the client reads it all, then the end."""
        ends = bench.open()
        content = os.urandom(12_000_000)
        sending = asyncio.create_task(ends.send(ends.backend, content))
        await _blocked(bench, ends.number)
        got = await ends.read(ends.client, len(content))
        await sending
        ends.backend.close()
        assert got == content
        assert await ends.read(ends.client, 1) == b""
        ends.client.close()
        assert await bench.ended(ends) == Ended(ends.number, 0, len(content), "ended")

    async def test_who_stays_after_its_backend_has_gone(self, benches: Benches) -> None:
        """A client that neither speaks nor closes after the backend's end is closed after a while; others stay."""
        bench = await benches(linger=1)
        ends, other = bench.open(), bench.open()
        ends.backend.close()
        assert (await bench.ended(ends)).reason == "ended"
        await other.pass_on(b"still", b"here")
        assert other.number not in bench.closed

    async def test_peers_that_vanish_are_found_out(self, bench: Bench) -> None:
        """By keepalive, on both sides: an end behind bytes that the client does not take is known by nothing else."""
        (client, client_far), (backend, backend_far) = bench.pair(), bench.pair()
        with client, backend, client_far.dup() as of_client, backend_far.dup() as of_backend:
            bench.relay.hand_over(100, client_far, backend_far)
            await bench.settled()
            for sock in (of_client, of_backend):
                assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
                assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 60
            bench.relay.cut(100)
            await bench.settled()

    async def test_who_does_not_read_after_its_backend_has_gone(self, benches: Benches) -> None:
        """What a client leaves unread is not kept for ever."""
        bench = await benches(linger=1)
        ends, sent = bench.open(), 0

        async def passed_on() -> bool:
            return (await bench.relay.counters())[ends.number][1] == sent

        # No more than the relay takes off the backend's hands: an end of file comes after all that was sent.
        with contextlib.suppress(TimeoutError):
            while await eventually(passed_on, seconds=1.0):
                await ends.send(ends.backend, b"x" * 65536)
                sent += 65536
                await eventually(lambda: _unsent(ends.backend) == 0, what="all on its way")
        ends.backend.close()
        assert (await bench.ended(ends)).reason == "client_lost"

    async def test_a_reader_that_does_not_read_costs_bounded_memory(self, bench: Bench) -> None:
        """Back-pressure: the sender is stopped, the relay keeps at most a chunk, and nothing is lost."""
        readers = [bench.open() for _ in range(20)]
        await bench.settled()
        before = bench.kib()
        sent = await asyncio.gather(*(_fill(ends.backend) for ends in readers))
        await asyncio.gather(*(_blocked(bench, ends.number) for ends in readers))
        # a chunk each, and as much again for what a heap costs
        assert bench.kib() - before < 20 * 2 * 64
        for ends, length in zip(readers, sent, strict=True):
            assert len(await ends.read(ends.client, length)) == length
        await readers[0].pass_on(b"on", b"and on")

    @pytest.mark.parametrize("who", ["client", "backend"])
    async def test_a_reset_is_passed_on(self, bench: Bench, who: str) -> None:
        """As a reset, not as an end: a transfer that broke must not look complete."""
        ends = bench.open()
        await ends.pass_on(b"a", b"b")
        broken, other = (ends.client, ends.backend) if who == "client" else (ends.backend, ends.client)
        reset(broken)
        with pytest.raises(ConnectionResetError):
            await ends.read(other, 1)
        assert (await bench.ended(ends)).reason == f"{who}_lost"

    async def test_a_reset_after_a_half_close(self, bench: Bench) -> None:
        """Is passed on as well: the client still waits for an answer, and must not take what it has for all."""
        ends = bench.open()
        ends.client.shutdown(socket.SHUT_WR)
        assert await ends.read(ends.backend, 1) == b""
        await ends.send(ends.backend, b"half an ans")
        assert await ends.read(ends.client, 11) == b"half an ans"
        reset(ends.backend)
        with pytest.raises(ConnectionResetError):
            await ends.read(ends.client, 1)
        assert (await bench.ended(ends)).reason == "ended"

    async def test_a_reset_is_seen_behind_a_reader_that_does_not_read(self, bench: Bench) -> None:
        """Even though nothing is read from the side that was reset."""
        ends = bench.open()
        await _fill(ends.backend)
        await _blocked(bench, ends.number)
        reset(ends.backend)
        assert (await bench.ended(ends)).reason == "backend_lost"

    async def test_last_words(self, bench: Bench) -> None:
        """A backend that says why and resets, because it was sent something meanwhile, is heard."""
        for _ in range(20):
            ends = bench.open()
            await ends.pass_on(b"a", b"b")
            await ends.send(ends.client, b"unread")
            await eventually(lambda ends=ends: _unread(ends.backend) == 6, what="the client's bytes")
            await ends.send(ends.backend, b"FATAL")
            ends.backend.close()
            with contextlib.suppress(ConnectionError):
                await ends.send(ends.client, b"more")
            assert await ends.read(ends.client, 5) == b"FATAL"
            await bench.ended(ends)

    async def test_cut(self, bench: Bench) -> None:
        """Both sides are reset; other connections do not notice, and what is not there is no error."""
        ends, other = bench.open(), bench.open()
        await ends.pass_on(b"a", b"b")
        bench.relay.cut(ends.number)
        bench.relay.cut(4711)
        for end in (ends.client, ends.backend):
            with pytest.raises(ConnectionResetError):
                await ends.read(end, 1)
        assert await bench.ended(ends) == Ended(ends.number, 1, 1, "cut")
        await other.pass_on(b"still", b"here")

    async def test_cut_while_a_reader_does_not_read(self, bench: Bench) -> None:
        ends = bench.open()
        await _fill(ends.backend)
        await _blocked(bench, ends.number)
        bench.relay.cut(ends.number)
        assert (await bench.ended(ends)).reason == "cut"

    async def test_two_thousand_at_once(self, bench: Bench) -> None:
        """Each gets its own bytes; each is counted and reported; the relay keeps no file of them."""
        await bench.settled()
        files = len(bench.files())
        every = []
        for _ in range(20):
            every += [bench.open() for _ in range(100)]
            await bench.settled()
        assert len(bench.files()) == files + 2 * len(every)
        await asyncio.gather(*(ends.pass_on(b"%08d" % ends.number, b"%07d" % ends.number) for ends in every))
        counted = await bench.relay.counters()
        assert counted == {ends.number: (8, 7) for ends in every}
        for ends in every:
            ends.close()
        await eventually(lambda: bench.relay.open == 0, what="the reports")
        assert {ended.reason for ended in bench.closed.values()} == {"ended"}
        assert len(bench.files()) == files

    async def test_idle_connections_cost_little(self, bench: Bench) -> None:
        """No buffer each. A thousand go ahead, so that what is reserved once is not counted."""
        for _ in range(10):
            [bench.open() for _ in range(100)]
            await bench.settled()
        before = bench.kib()
        for _ in range(20):
            [bench.open() for _ in range(100)]
            await bench.settled()
        assert (bench.kib() - before) / 2000 < self.idle_kib

    async def test_a_front_that_is_busy(self, bench: Bench) -> None:
        """Reports that it does not take yet are kept, and come in the end, each once."""
        every = []
        for _ in range(15):
            every += [bench.open() for _ in range(100)]
            await bench.settled()
        os.kill(bench.relay.pid, signal.SIGSTOP)
        for ends in every:
            bench.relay.cut(ends.number)
        os.kill(bench.relay.pid, signal.SIGCONT)
        # The loop of this test, which would take them, stands still meanwhile.
        every[200].client.settimeout(PATIENCE)
        with pytest.raises(ConnectionResetError):
            every[200].client.recv(1)
        await eventually(lambda: len(bench.closed) == len(every), what="the reports")
        assert {ended.reason for ended in bench.closed.values()} == {"cut"}

    async def test_too_many_files(self, bench: Bench) -> None:
        """What it has no file descriptors for is reported; the control socket and other connections go on."""
        first = bench.open()
        await bench.settled()
        before = resource.prlimit(bench.relay.pid, resource.RLIMIT_NOFILE)
        used = bench.files()
        room_for_three = [number for number in range(1000) if number not in used][3]
        resource.prlimit(bench.relay.pid, resource.RLIMIT_NOFILE, (room_for_three, before[1]))
        more = [bench.open() for _ in range(5)]
        await bench.settled()
        assert [(await bench.ended(ends)).reason for ends in more[1:]] == ["exhausted"] * 4
        with pytest.raises(ConnectionResetError):
            await more[1].read(more[1].client, 1)
        await more[0].pass_on(b"there", b"is room for one")
        await first.pass_on(b"still", b"here")
        more[0].close()
        await bench.ended(more[0])
        await bench.open().pass_on(b"there is room", b"again")
        assert len(bench.files()) == len(used) + 2

    async def test_a_front_that_dies(self, bench: Bench, argv: list[str]) -> None:
        """Its connections go on to their ends; then the relay exits by itself."""
        (client, client_far), (backend, backend_far) = bench.pair(), bench.pair()
        ends = (client_far, backend_far)
        with _front(argv, *ends) as front:
            for end in ends:
                end.close()
            assert front.stdout is not None
            relay = psutil.Process(int(await asyncio.to_thread(front.stdout.readline)))
            assert os.getsid(relay.pid) != os.getsid(0)
            front.kill()
        loop = asyncio.get_running_loop()
        for sender, receiver in ((client, backend), (backend, client)):
            await loop.sock_sendall(sender, b"still here")
            assert await asyncio.wait_for(loop.sock_recv(receiver, 100), PATIENCE) == b"still here"
        assert relay.is_running()
        client.close()
        backend.close()
        await eventually(lambda: not relay.is_running() or relay.status() == "zombie", what="the relay's end")

    def test_garbage_on_the_control_socket(self, argv: list[str]) -> None:
        """Messages that it does not understand are dropped, with their files; those that it does still hold."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, subprocess.Popen([*argv, str(theirs.fileno())], pass_fds=[theirs.fileno()]) as relay:
            theirs.close()
            ours.settimeout(PATIENCE)
            assert HEADER.unpack(ours.recv(1000))[0] == READY
            files = len(files_of(relay.pid))
            dice = random.Random(5)
            for number in range(300):
                near, far = socket.socketpair()
                content = _garbage(dice)
                socket.send_fds(ours, [content], [far.fileno()] * dice.choice([0, 1, 2, 3, 20]))
                far.close()
                # The other end learns that whatever was sent is closed.
                near.settimeout(PATIENCE)
                assert near.recv(1) == b"", number
                near.close()
            ours.send(HEADER.pack(COUNTERS, 0, 0, 0, 99))
            while (answer := HEADER.unpack_from(ours.recv(1000)))[0] != COUNTERS:
                pass
            assert (answer[1], answer[4]) == (0, 99)
            assert len(files_of(relay.pid)) == files
            ours.close()
            assert relay.wait(PATIENCE) == 0

    async def test_unix_sockets_and_what_is_no_socket(self, bench: Bench) -> None:
        """A backend may be on a Unix socket; what cannot be relayed at all is reported and hurts nobody."""
        client, client_far = bench.pair()
        near, far = socket.socketpair()
        near.setblocking(False)
        bench.relay.hand_over(100, client_far, far)
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(client, b"to a Unix socket")
        assert await asyncio.wait_for(loop.sock_recv(near, 100), PATIENCE) == b"to a Unix socket"
        client.close()
        near.close()
        await eventually(lambda: 100 in bench.closed, what="the report")
        with bench.listening.dup() as listening:
            other, other_far = bench.pair()
            bench.relay.hand_over(101, other_far, listening)
            await loop.sock_sendall(other, b"x")
            await eventually(lambda: 101 in bench.closed, what="the report")
            other.close()

    async def test_killed(self, bench: Bench) -> None:
        """The front learns of each connection, then of the death; new ones stay with whoever has them."""
        every = [bench.open() for _ in range(3)]
        await bench.settled()
        os.kill(bench.relay.pid, signal.SIGKILL)
        await eventually(lambda: bench.deaths, what="word of the death")
        assert [bench.closed[ends.number].reason for ends in every] == ["relay_died"] * 3
        assert not bench.relay.alive
        client, far = bench.pair()
        with pytest.raises(RelayGone):
            bench.relay.hand_over(1000, far, far)
        with pytest.raises(RelayGone):
            await bench.relay.counters()
        assert far.fileno() >= 0
        client.close()
        far.close()

    async def test_closing_cuts(self, bench: Bench) -> None:
        """All that is open is reset and reported, and the process is gone; closing twice is no error."""
        every = [bench.open() for _ in range(3)]
        await bench.relay.close()
        assert [bench.closed[ends.number].reason for ends in every] == ["cut"] * 3
        assert not psutil.pid_exists(bench.relay.pid)
        assert bench.deaths == []
        await bench.relay.close()

    async def test_closing_may_leave_it_to_finish(self, bench: Bench) -> None:
        """Connections go on without the front; the process ends with the last."""
        ends = bench.open()
        await bench.relay.close(cut=False)
        await ends.pass_on(b"still", b"here")
        with pytest.raises(RelayGone):
            bench.relay.hand_over(1000, ends.client, ends.backend)
        ends.close()
        await eventually(lambda: not psutil.pid_exists(bench.relay.pid), what="the relay's end")
        assert bench.deaths == []

    async def test_it_stands_alone(self, bench: Bench) -> None:
        """A session of its own, no file of ours but stderr, and as many files as it may have."""
        await bench.settled()
        relay = psutil.Process(bench.relay.pid)
        assert os.getsid(relay.pid) == relay.pid
        assert _names(relay.pid, (0, 1)) == {"/dev/null"}
        assert len(bench.files()) == 5
        soft, hard = resource.prlimit(relay.pid, resource.RLIMIT_NOFILE)
        assert soft == hard
        assert hard - 20 < 2 * bench.relay.capacity < hard


class TestCompiled(RelayContract):
    idle_kib = 0.5

    @pytest.fixture
    def argv(self, compiled: Path) -> list[str]:
        return [str(compiled)]

    def test_neither_memory_nor_a_front_that_reads(self, argv: list[str]) -> None:
        """What there is no memory for is reported; until the front takes that, what is there already goes on."""
        with contextlib.ExitStack() as stack:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            (client, client_far), (backend, backend_far) = socket.socketpair(), socket.socketpair()
            for end in (ours, client, backend):
                stack.enter_context(end).settimeout(PATIENCE)
            with theirs:
                words = [*argv, str(theirs.fileno())]
                relay = stack.enter_context(subprocess.Popen(words, pass_fds=[theirs.fileno()]))
            stack.callback(relay.kill)
            assert HEADER.unpack(ours.recv(1000))[0] == READY
            _hand_over(ours, 0, client_far, backend_far)
            client.send(b"is there")
            assert backend.recv(100) == b"is there"
            _, most = resource.prlimit(relay.pid, resource.RLIMIT_DATA)
            resource.prlimit(relay.pid, resource.RLIMIT_DATA, (1, most))
            number = 0
            while select.select([], [ours], [], 1)[1]:
                number += 1
                # Each with itself, so that nothing moves and none ends.
                _hand_over(ours, number, *socket.socketpair())
            client.send(b"goes on")
            assert backend.recv(100) == b"goes on"
            reported: list[int] = []
            while not reported or reported[-1] < number:
                kind, reason, _, _, which = HEADER.unpack_from(ours.recv(1000))
                assert (kind, REASONS[reason]) == (CLOSED, "exhausted")
                reported.append(which)
            assert reported == list(range(reported[0], number + 1))


class TestPython(RelayContract):
    idle_kib = 4.0

    @pytest.fixture
    def argv(self, fallback: list[str]) -> list[str]:
        return fallback


def _hand_over(ours: socket.socket, number: int, client: socket.socket, backend: socket.socket) -> None:
    """By the bare protocol."""
    with client, backend:
        socket.send_fds(ours, [HEADER.pack(HANDOVER, 0, 0, 0, number)], [client.fileno(), backend.fileno()])


def _front(argv: list[str], *ends: socket.socket) -> subprocess.Popen[bytes]:
    numbers = [end.fileno() for end in ends]
    words = [sys.executable, "-c", FRONT, *(str(number) for number in numbers), *argv]
    return subprocess.Popen(words, pass_fds=numbers, stdout=subprocess.PIPE)


def _names(pid: int, numbers: tuple[int, ...]) -> set[str]:
    return {str(Path(f"/proc/{pid}/fd/{number}").readlink()) for number in numbers}


async def _fill(end: socket.socket) -> int:
    """Send until nothing more is taken for a while; how much was."""
    sent, content = 0, b"x" * 65536
    loop = asyncio.get_running_loop()
    while True:
        try:
            sent += end.send(content)
        except BlockingIOError:
            writable = asyncio.Event()
            loop.add_writer(end, writable.set)
            try:
                await asyncio.wait_for(writable.wait(), 0.3)
            except TimeoutError:
                return sent
            finally:
                loop.remove_writer(end)


async def _blocked(bench: Bench, number: int) -> None:
    """Wait until the client has taken all that its socket holds."""
    seen: list[int] = []

    async def still() -> bool:
        seen.append((await bench.relay.counters())[number][1])
        return len(seen) > 20 and seen[-1] > 0 and seen[-1] == seen[-20]

    await eventually(still, what="a client that takes nothing more")


def _unread(end: socket.socket) -> int:
    try:
        return len(end.recv(1000, socket.MSG_PEEK))
    except BlockingIOError:
        return 0


def _unsent(end: socket.socket) -> int:
    return int.from_bytes(fcntl.ioctl(end, termios.TIOCOUTQ, b"\0\0\0\0"), sys.byteorder)


def _garbage(dice: random.Random) -> bytes:
    """Anything but an empty message, which is what an end of file looks like, and a whole handover."""
    content = dice.choice([dice.randbytes(dice.randrange(1, 100)), dice.randbytes(60_000)])
    kind = dice.choice([0, HANDOVER, CUT, 77])
    lengths = dice.choice([(0, 1), (2**32 - 1, 25), (2**31, 2**31), (65537, 0)])
    header = HEADER.pack(kind, *lengths, 0, dice.randrange(2**64))
    return dice.choice([content, header[: dice.randrange(1, 24)], header, header + content])
