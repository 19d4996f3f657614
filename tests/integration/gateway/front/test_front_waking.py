"""Connections to endpoints that sleep, wake, are stopped, or die."""

from __future__ import annotations

import asyncio
import os
import signal

import psutil
import psycopg
import pytest

from lamplighter.gateway import spawning
from lamplighter.gateway.errors import SpawnFailed
from support.waiting import eventually


async def test_a_sleeping_endpoint_wakes_and_serves(platform, endpoint):
    """The first connection wakes the endpoint, and is served and not refused."""
    assert await endpoint.select() == 42
    assert platform.wakes == {endpoint.id: 1}


async def test_an_awake_endpoint_is_not_woken(platform, endpoint):
    """Later connections ask for nothing."""
    await endpoint.select()
    assert await endpoint.select() == 42
    assert platform.wakes == {endpoint.id: 1}


async def test_a_hundred_connections_at_once_are_one_wake(platform, endpoint):
    """Whoever comes while an endpoint starts waits for the same start."""
    platform.answer_wakes = False
    clients = [asyncio.create_task(endpoint.select()) for _ in range(100)]
    await eventually(lambda: platform.wakes[endpoint.id])
    await platform.wake(endpoint.id)
    assert await asyncio.gather(*clients) == [42] * 100
    assert platform.wakes == {endpoint.id: 1}


async def test_an_endpoint_sleeps_and_wakes_again_and_again(platform, endpoint):
    """Each time its compute has another private port; its public one stays."""
    ports = set()
    for _ in range(3):
        assert await endpoint.select() == 42
        ports.add(endpoint.private)
        await platform.suspend(endpoint.id)
    assert platform.wakes[endpoint.id] == 3
    assert len(ports) == 3


async def test_who_comes_while_it_is_held_waits(platform, endpoint):
    """A connection to a compute that is about to be stopped is served by the next one."""
    await endpoint.select()
    await platform.set(endpoint.id, state="holding")
    client = asyncio.create_task(endpoint.select())
    await platform.supervisor(endpoint).stop(endpoint.id)
    await platform.set(endpoint.id, state="asleep", compute=None)
    assert await client == 42
    assert platform.wakes[endpoint.id] == 2


async def test_a_wake_that_fails_is_told(own, own_endpoint):
    """The client gets the platform's error with its code, detail and hint, and the next one asks anew."""
    own.answer_wakes = False
    for number in (1, 2):
        client = asyncio.create_task(own_endpoint.connect())
        await eventually(lambda number=number: own.wakes[own_endpoint.id] == number)
        own.fail(own_endpoint.id, "53100", "no space", "the disk is full", "see the log")
        with pytest.raises(
            psycopg.OperationalError, match=r"(?s)no space.*DETAIL:  the disk is full.*HINT:  see the log"
        ):
            await client
    await eventually(lambda: own.refused["wake_failed"] == 2)


async def test_what_is_told_when_nobody_wakes_it(make_platform):
    """Without an answer of the platform a client is told so, in time; without a platform, who has to be asked for it.

    Awake endpoints are served all the same.
    """
    async with make_platform("--wake", "0.5") as platform:
        awake = await platform.add("ep-awake")
        asleep = await platform.add("ep-asleep")
        await platform.wake(awake.id)
        platform.answer_wakes = False
        with pytest.raises(psycopg.OperationalError, match=r"was not ready within 0\.5 seconds"):
            await asleep.connect()
        await platform.leave()
        assert await awake.select() == 42
        with pytest.raises(psycopg.OperationalError, match="control plane does not answer"):
            await asleep.connect()


async def test_a_platform_that_comes_back_hears_of_who_waits(own, own_endpoint):
    """A wake is asked for again by the next platform."""
    await own.leave()
    client = asyncio.create_task(own_endpoint.select())
    await eventually(lambda: "platform_gone" in own.gateway.log.read_text())
    await own.connect()
    assert await client == 42


async def test_a_postmaster_that_was_killed_is_started_for_who_comes_next(platform, endpoint):
    """The platform did not know; the connection waits until it does."""
    await endpoint.select()
    status = platform.secure.status(endpoint.id)
    os.kill(status.pid, signal.SIGKILL)
    await eventually(lambda: platform.secure.status(endpoint.id).state == "crashed")
    assert await endpoint.select() == 42
    assert platform.wakes[endpoint.id] == 2


async def test_a_relay_that_dies_is_replaced(own, own_endpoint):
    """Its connections are lost, and later ones are served by another."""
    held = await own_endpoint.connect()
    (relay,) = own.gateway.relays()
    os.kill(relay, signal.SIGKILL)
    with pytest.raises(psycopg.OperationalError):
        await held.execute("SELECT 1")
    await eventually(lambda: len(own.gateway.relays()) == 2)
    assert await own_endpoint.select() == 42
    await eventually(lambda: own.open_of(own_endpoint.id) == 0)


async def test_traffic_is_reported(platform, endpoint):
    """Connections now, connections in all, and bytes both ways."""
    async with await endpoint.connect():
        await eventually(lambda: platform.open_of(endpoint.id) == 1)
    await eventually(lambda: platform.open_of(endpoint.id) == 0)
    traffic = platform.traffic[endpoint.id]
    assert traffic.accepted == 1
    assert traffic.bytes_in > 100
    assert traffic.bytes_out > 1000


async def test_a_dropped_endpoint_is_cut_and_its_port_is_free(platform, endpoint):
    """Whoever is connected is cut off; nobody gets in any more."""
    held = await endpoint.connect()
    await platform.supervisor(endpoint).stop(endpoint.id, mode="immediate")
    await platform.drop(endpoint.id)
    with pytest.raises(psycopg.OperationalError):
        await held.execute("SELECT 1")
    with pytest.raises(psycopg.OperationalError, match="refused"):
        await endpoint.connect()


async def test_a_drained_gateway_serves_to_the_end_and_ends(own, own_endpoint):
    """It leaves its ports and its socket at once, keeps the connections it has, and ends with the last."""
    async with await own_endpoint.connect() as held:
        own.drain()
        await eventually(lambda: not own.gateway.socket.exists())
        with pytest.raises(psycopg.OperationalError, match="refused"):
            await own_endpoint.connect()
        assert (await (await held.execute("SELECT 7")).fetchone()) == (7,)
        assert own.gateway.process.poll() is None
    await eventually(lambda: own.gateway.process.poll() is not None)
    assert own.gateway.process.returncode == 0


async def test_a_gateway_that_is_killed_leaves_connections_alone(own, own_endpoint):
    """The relay serves what it has; another gateway takes the ports."""
    async with await own_endpoint.connect() as held:
        own.gateway.process.kill()
        await eventually(lambda: own.gateway.process.poll() is not None)
        assert (await (await held.execute("SELECT 7")).fetchone()) == (7,)


async def test_a_gateway_of_another_version_is_told_apart(own, own_endpoint):
    """It says which it is, keeps its ports until it is drained, and then leaves them to the next one."""
    await own.leave()
    await own.connect(version="0.0.0")
    assert own.welcome.version != "0.0.0"
    assert await own_endpoint.select() == 42
    own.drain()
    await eventually(lambda: own.gateway.process.poll() is not None)


async def test_a_second_platform_takes_the_place_of_the_first(platform, endpoint):
    """The first one's line is closed, and nobody is cut off."""
    async with await endpoint.connect() as held:
        first, writer = platform._reading, platform._writer
        await platform.connect()
        await eventually(first.done)
        writer.close()
        assert (await (await held.execute("SELECT 7")).fetchone()) == (7,)
        await eventually(lambda: platform.open_of(endpoint.id) == 1)
        await platform.suspend(endpoint.id)
    assert await endpoint.select() == 42


async def test_spawned_gateways_outlive_who_spawned_them(place):
    """They run in a session of their own and end by SIGTERM."""
    (place / "s").mkdir()
    path, log = place / "s" / "gw.sock", place / "s" / "log"
    pid = await spawning.start(path, log)
    try:
        assert os.getsid(pid) == pid
        assert spawning.answers(path)
        with pytest.raises(SpawnFailed, match="ended with status 1"):
            await _second(path, log)
    finally:
        os.kill(pid, signal.SIGTERM)
        await eventually(lambda: not psutil.pid_exists(pid))
    assert not spawning.answers(path)
    with pytest.raises(SpawnFailed, match="too long"):
        await spawning.start(place / ("x" * 120), log)


async def _second(path, log):
    """Where the socket's name is gone but its owner is not, no second one may begin."""
    path.unlink()
    await spawning.start(path, log)
