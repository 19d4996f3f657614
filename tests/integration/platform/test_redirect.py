"""The kernel leads connections, on real sockets. No table is touched but those of directories that the tests make."""

from __future__ import annotations

import ipaddress
import os
import secrets
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Self

import anyio
import pytest

from lamplighter.gateway.ports import Backend, Route
from lamplighter.platform.census import connected
from lamplighter.platform.redirect import Redirects, find_program, leftover, repair, unavailable
from lamplighter.platform.redirect_plan import Counted

pytestmark = pytest.mark.root


def nft(*arguments: str) -> str:
    return subprocess.run([find_program("nft") or "nft", *arguments], check=True, capture_output=True, text=True).stdout


def tables() -> set[str]:
    return {line.split()[2] for line in nft("list", "tables").splitlines()}


class Stand:
    """Sockets that say who they are: a gateway's on public ports, a Postgres' on private ones."""

    def __init__(self, stack: ExitStack) -> None:
        self.stack = stack

    def listen(self, host: str = "127.0.0.1") -> socket.socket:
        server = socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        server.settimeout(5)
        return self.stack.enter_context(server)

    def connect(self, server: socket.socket, host: str | None = None) -> socket.socket:
        name = server.getsockname()
        client = socket.create_connection((host or name[0], name[1]), timeout=5)
        return self.stack.enter_context(client)

    def accept(self, server: socket.socket) -> socket.socket:
        connection = server.accept()[0]
        connection.settimeout(5)
        return self.stack.enter_context(connection)


@pytest.fixture
def stand() -> Iterator[Stand]:
    with ExitStack() as stack:
        yield Stand(stack)


@pytest.fixture
async def redirects(tmp_path: Path) -> AsyncIterator[Redirects]:
    made = Redirects(tmp_path)
    yield made
    await made.clear()


def port(server: socket.socket) -> int:
    return server.getsockname()[1]


def awake(public: socket.socket, private: socket.socket, endpoint_id: str = "ep-a") -> Route:
    return Route(endpoint_id, "p", "awake", port(public), compute=Backend("127.0.0.1", port(private), tls=True))


def talks(one: socket.socket, other: socket.socket) -> bool:
    word = secrets.token_bytes(8)
    one.sendall(word)
    if other.recv(8) != word:
        return False
    other.sendall(word)
    return one.recv(8) == word


async def test_new_connections_go_to_the_postgres_while_the_rule_is_there(redirects: Redirects, stand: Stand) -> None:
    """And its end of them has its private port, by which the census counts them."""
    public, private = stand.listen(), stand.listen()
    await redirects.set(awake(public, private))
    client = stand.connect(public)
    server = stand.accept(private)
    assert talks(client, server)
    assert client.getpeername() == public.getsockname()
    assert server.getsockname() == private.getsockname()
    assert connected([port(public), port(private)]) == {port(public): 0, port(private): 1}


async def test_when_the_rule_goes_new_connections_reach_the_gateway_and_old_ones_live(
    redirects: Redirects, stand: Stand
) -> None:
    public, private = stand.listen(), stand.listen()
    await redirects.set(awake(public, private))
    old = stand.connect(public)
    at_postgres = stand.accept(private)
    await redirects.set(replace(awake(public, private), state="holding"))
    new = stand.connect(public)
    assert talks(new, stand.accept(public))
    assert talks(old, at_postgres)


async def test_connections_of_the_gateway_stay_when_the_rule_comes(redirects: Redirects, stand: Stand) -> None:
    """Also those that began before the kernel followed connections at all."""
    public, private = stand.listen(), stand.listen()
    old = stand.connect(public)
    at_gateway = stand.accept(public)
    await redirects.set(awake(public, private))
    assert talks(old, at_gateway)
    assert talks(stand.connect(public), stand.accept(private))


async def test_a_compute_that_comes_back_on_another_port_is_found(redirects: Redirects, stand: Stand) -> None:
    public, first, second = stand.listen(), stand.listen(), stand.listen()
    await redirects.set(awake(public, first))
    await redirects.set(awake(public, second))
    assert talks(stand.connect(public), stand.accept(second))


async def test_who_is_not_allowed_reaches_the_gateway(redirects: Redirects, stand: Stand) -> None:
    """Which tells why. The list can change while the endpoint is awake, to one that overlaps the former."""
    public, private = stand.listen(), stand.listen()
    route = awake(public, private)
    for allowed, reached in [
        (("10.0.0.0/8", "192.168.1.1-192.168.1.9"), public),
        (("10.0.0.0/9", "127.0.0.0/8", "127.0.0.1"), private),
        (("0.0.0.0/0", "::/0"), private),
        (("127.0.0.2-127.0.0.255",), public),
        ((), public),
        (None, private),
    ]:
        await redirects.set(replace(route, allowed=allowed))
        assert talks(stand.connect(public), stand.accept(reached)), allowed


async def test_what_went_by_is_counted(redirects: Redirects, stand: Stand) -> None:
    """Since the last call; over a sleep of the endpoint too, and nothing that went through the gateway."""
    public, private = stand.listen(), stand.listen()
    route = awake(public, private)
    await redirects.replace_all([route])
    client = stand.connect(public)
    server = stand.accept(private)
    client.sendall(b"x" * 100_000)
    got = 0
    while got < 100_000:
        got += len(server.recv(65536))
    server.sendall(b"y" * 1000)
    assert client.recv(2000) == b"y" * 1000
    await redirects.set(replace(route, state="asleep"))
    assert talks(stand.connect(public), stand.accept(public))
    counted = (await redirects.counters())["ep-a"]
    assert counted.accepted == 1
    assert 100_000 <= counted.bytes_in <= 101_000
    assert 1000 <= counted.bytes_out <= 1200
    assert await redirects.counters() == {"ep-a": Counted()}


async def test_two_hundred_endpoints_at_once(redirects: Redirects, stand: Stand) -> None:
    """Changes that come together go together; each is in force when its call returns."""
    pairs = [(stand.listen(), stand.listen()) for _ in range(200)]
    await redirects.replace_all([])

    async def wake(number: int) -> None:
        await redirects.set(awake(*pairs[number], endpoint_id=f"ep-{number}"))
        client = socket.create_connection(pairs[number][0].getsockname(), timeout=5)
        stand.stack.enter_context(client)
        connection = stand.accept(pairs[number][1])
        assert talks(client, connection)

    async with anyio.create_task_group() as tasks:
        for number in range(200):
            tasks.start_soon(wake, number)
    assert {number: one.accepted for number, one in (await redirects.counters()).items()} == {
        f"ep-{number}": 1 for number in range(200)
    }
    await redirects.remove("ep-7")
    assert talks(stand.connect(pairs[7][0]), stand.accept(pairs[7][0]))
    assert talks(stand.connect(pairs[8][0]), stand.accept(pairs[8][1]))
    assert "ep-7" not in await redirects.counters()


async def test_the_next_platform_takes_over_what_a_killed_one_has_left(
    redirects: Redirects, stand: Stand, tmp_path: Path
) -> None:
    """Established connections go on over the exchange of the whole table."""
    public, private, other = stand.listen(), stand.listen(), stand.listen()
    await redirects.replace_all([replace(awake(public, private), allowed=("127.0.0.1",))])
    old = stand.connect(public)
    at_postgres = stand.accept(private)
    again = Redirects(tmp_path)
    await again.replace_all([awake(public, private), awake(other, private, "ep-b")])
    assert talks(old, at_postgres)
    assert talks(stand.connect(other), stand.accept(private))
    await again.replace_all([])
    assert talks(stand.connect(other), stand.accept(other))
    assert talks(old, at_postgres)


async def test_a_start_without_redirects_leaves_what_is_established(
    redirects: Redirects, stand: Stand, tmp_path: Path
) -> None:
    public, private = stand.listen(), stand.listen()
    await redirects.set(awake(public, private))
    old = stand.connect(public)
    at_postgres = stand.accept(private)
    await Redirects(tmp_path).withdraw()
    assert talks(stand.connect(public), stand.accept(public))
    assert talks(old, at_postgres)


async def test_withdraw_and_clear_need_no_table(tmp_path: Path) -> None:
    before = tables()
    await Redirects(tmp_path).withdraw()
    await Redirects(tmp_path).clear()
    assert tables() == before


@pytest.mark.parametrize("act", ["change", "counters"])
async def test_a_table_that_a_firewall_has_flushed_is_made_anew(redirects: Redirects, stand: Stand, act: str) -> None:
    """By whatever comes next."""
    public, private, other = stand.listen(), stand.listen(), stand.listen()
    await redirects.set(awake(public, private))
    nft("delete", "table", "inet", redirects.name)
    assert talks(stand.connect(public), stand.accept(public))
    if act == "change":
        await redirects.set(awake(other, private, "ep-b"))
    else:
        await redirects.counters()
    assert talks(stand.connect(public), stand.accept(private))


async def test_a_caller_that_is_cancelled_leaves_order(redirects: Redirects, stand: Stand) -> None:
    """What was asked for may hold or not; what is asked for next does."""
    public, private, other = stand.listen(), stand.listen(), stand.listen()
    await redirects.replace_all([])
    with anyio.move_on_after(0):
        await redirects.set(awake(public, private))
    await redirects.set(awake(public, other))
    assert talks(stand.connect(public), stand.accept(other))


async def test_two_platforms_side_by_side(tmp_path: Path, stand: Stand) -> None:
    """Neither sees the other's table, nor a table that is no platform's."""
    foreign = f"firewall_{secrets.token_hex(4)}"
    nft("add", "table", "inet", foreign)
    one, two = Redirects(tmp_path / "one"), Redirects(tmp_path / "two")
    first, second, private = stand.listen(), stand.listen(), stand.listen()
    try:
        await one.set(awake(first, private))
        await two.set(awake(second, private))
        await one.clear()
        assert talks(stand.connect(first), stand.accept(first))
        assert talks(stand.connect(second), stand.accept(private))
        assert foreign in tables()
    finally:
        await one.clear()
        await two.clear()
        nft("delete", "table", "inet", foreign)
    assert not {one.name, two.name} & tables()


async def test_what_dead_platforms_have_left_is_found_and_removed(tmp_path: Path, stand: Stand) -> None:
    """A table whose Postgres still listens is not: its platform may just be starting again."""
    public, gone, private = stand.listen(), stand.listen(), stand.listen()
    dead, alive = Redirects(tmp_path / "dead"), Redirects(tmp_path / "alive")
    await dead.set(awake(public, gone))
    await alive.set(awake(public, private))
    try:
        gone.close()
        found = [table for table in leftover() if table.data_dir in {str(tmp_path / "dead"), str(tmp_path / "alive")}]
        assert [(table.name, table.data_dir) for table in found] == [(dead.name, str(tmp_path / "dead"))]
        assert repair(found) == [dead.name]
        assert dead.name not in tables()
        assert alive.name in tables()
    finally:
        await dead.clear()
        await alive.clear()


def test_lamp_doctor_removes_what_dead_platforms_have_left_when_asked_to(tmp_path: Path) -> None:
    """In a network of its own, for it removes those of every platform; a table that is not ours stays."""
    left = Redirects(tmp_path / "dead").name
    script = f"""
        nft add table inet somebody
        "$0" -c '
import asyncio, pathlib, sys
from lamplighter.platform.redirect import Redirects
asyncio.run(Redirects(pathlib.Path(sys.argv[1])).replace_all([]))' {tmp_path / "dead"}
        doctor() {{ "$0" -m lamplighter doctor --data-dir {tmp_path / "new"} "$@" 2>&1 || true; }}
        doctor; echo ==; nft list tables; echo ==; doctor --fix; echo ==; nft list tables
    """
    command = ["unshare", "--net", "sh", "-ec", f"ip link set lo up\n{script}", sys.executable]
    env = os.environ | {"PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin", "LAMP_PORT": "0"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=env)
    told, before, mended, after = done.stdout.split("==")
    assert f"nftables table {left} is of a platform that does not run" in told
    assert f"table inet {left}" in before
    assert f"Removed the nftables table {left}" in mended
    assert "kernel redirect:" not in mended
    assert after.split("\n")[1:-1] == ["table inet somebody"]


def test_it_works_here_and_trying_it_leaves_nothing() -> None:
    before = tables()
    assert unavailable() is None
    assert tables() == before


def test_who_may_not_use_nft_is_told_so() -> None:
    """As root without the capability, so that the program itself can be reached."""
    code = "from lamplighter.platform.redirect import leftover, unavailable; print(unavailable(), leftover())"
    without = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"]
    done = subprocess.run([*without, sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "not permitted" in done.stdout
    assert "[]" in done.stdout


def test_where_there_is_no_nft_the_reason_says_so() -> None:
    """And there is nothing to remove."""
    code = (
        "import asyncio, pathlib\n"
        "from lamplighter.platform.redirect import Redirects, leftover, unavailable\n"
        "asyncio.run(Redirects(pathlib.Path('/nowhere')).withdraw())\n"
        "asyncio.run(Redirects(pathlib.Path('/nowhere')).clear())\n"
        "print(unavailable(), leftover())"
    )
    hidden = f'mount --bind /dev/null {find_program("nft")} && exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", hidden, "sh", sys.executable, "-c", code]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "install it (package nftables)" in done.stdout
    assert "[]" in done.stdout


class Network:
    """Another host, as the kernel sees it: a network namespace, by a pair of virtual interfaces."""

    def __init__(self) -> None:
        self.name = f"lamp{secrets.token_hex(3)}"
        # Of 198.18.0.0/15, which is for tests of networks; another one for each that runs beside us.
        low = f"198.18.{secrets.randbelow(256)}.{4 * secrets.randbelow(64)}"
        self.here, self.there = (str(ipaddress.ip_address(low) + number) for number in (1, 2))

    def __enter__(self) -> Self:
        near, far = f"{self.name}n", f"{self.name}f"
        self._ip("netns", "add", self.name)
        try:
            self._connect(near, far)
        except subprocess.CalledProcessError:
            self.__exit__()
            raise
        return self

    def _connect(self, near: str, far: str) -> None:
        self._ip("link", "add", near, "type", "veth", "peer", "name", far, "netns", self.name)
        self._ip("addr", "add", f"{self.here}/30", "dev", near)
        self._ip("link", "set", near, "up")
        self._ip("-n", self.name, "addr", "add", f"{self.there}/30", "dev", far)
        self._ip("-n", self.name, "link", "set", far, "up")

    def __exit__(self, *_: object) -> None:
        self._ip("netns", "del", self.name)

    def _ip(self, *arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True, capture_output=True)

    def peer_of(self, address: str, port: int) -> str:
        """Who answers a client over there: the word that the server says, or why there was no connection."""
        code = (
            "import socket\n"
            f"try: print(socket.create_connection(('{address}', {port}), timeout=5).recv(99).decode())\n"
            "except OSError as error: print(type(error).__name__)"
        )
        command = ["ip", "netns", "exec", self.name, sys.executable, "-c", code]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def network() -> Iterator[Network]:
    with Network() as made:
        yield made


def greet(server: socket.socket, word: bytes) -> threading.Thread:
    def run() -> None:
        with suppress(OSError):
            while True:
                connection, peer = server.accept()
                with connection:
                    connection.sendall(word + b" " + peer[0].encode())

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("everywhere", [True, False])
async def test_clients_of_the_network_are_not_led(
    tmp_path: Path, stand: Stand, network: Network, everywhere: bool
) -> None:
    """Clients of this host are, by whichever address the gateway listens on, and only those that are allowed."""
    public, private = stand.listen("0.0.0.0" if everywhere else network.here), stand.listen()
    threads = [greet(public, b"gateway"), greet(private, b"postgres")]
    redirects = Redirects(tmp_path, [public.getsockname()[0]])
    route = awake(public, private)

    def peer_here(address: str) -> str:
        return stand.connect(public, address).recv(99).decode()

    try:
        await redirects.set(route)
        assert network.peer_of(network.here, port(public)) == f"gateway {network.there}"
        for address in (network.here, "127.0.0.1") if everywhere else (network.here,):
            assert peer_here(address) == f"postgres {address}"
        await redirects.set(replace(route, allowed=(network.there,)))
        assert peer_here(network.here) == f"gateway {network.here}"
        assert network.peer_of(network.here, port(public)) == f"gateway {network.there}"
        await redirects.set(replace(route, allowed=(network.here,)))
        assert peer_here(network.here) == f"postgres {network.here}"
    finally:
        await redirects.clear()
        for server in (public, private):
            server.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(5)
