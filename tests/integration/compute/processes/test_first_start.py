"""The first start of a clone: it must not go on with what its parent does with other servers."""

from __future__ import annotations

import os
import shutil
import signal
from dataclasses import replace

import pytest

from lamplighter.compute import launcher, process

INHERITED = "SELECT count(*) FROM pg_subscription WHERE subenabled OR subslotname IS NOT NULL"


READY = "SELECT bool_and(srsubstate = 'r') FROM pg_subscription_rel"


async def value(supervisor, compute_id, query, dbname="neondb"):
    async with await supervisor.connect(compute_id, dbname) as connection:
        cursor = await connection.execute(query)
        return (await cursor.fetchone())[0] if cursor.description else None


async def subscribed(house, until, major=17):
    """A publisher, and a subscriber in which its first row has arrived."""
    supervisor = house.supervisor()
    publisher = house.spec("ep-publisher", major=major, logical_replication=True)
    subscriber = house.spec("ep-subscriber", major=major)
    for spec in (publisher, subscriber):
        await supervisor.start(spec)
        await value(supervisor, spec.id, "CREATE TABLE public.t (a int PRIMARY KEY)")
    await value(supervisor, publisher.id, "CREATE PUBLICATION p FOR TABLE public.t")
    await value(supervisor, publisher.id, "INSERT INTO public.t VALUES (1)")
    directory, port = supervisor.socket(publisher.id)
    await value(
        supervisor,
        subscriber.id,
        f"CREATE SUBSCRIPTION s CONNECTION 'host={directory} port={port} user=cloud_admin dbname=neondb' PUBLICATION p",
    )
    await until(lambda: value(supervisor, subscriber.id, READY), within=60)
    assert await arrived(supervisor, subscriber, 1)
    return supervisor, publisher, subscriber


async def arrived(supervisor, spec, number):
    return await value(supervisor, spec.id, f"SELECT EXISTS (SELECT FROM public.t WHERE a = {number})")


@pytest.mark.parametrize("major", [14, 15, 16, 17, 18])
async def test_a_clone_of_a_subscriber_leaves_the_changes_to_its_parent(house, until, free_port, major):
    supervisor, publisher, subscriber = await subscribed(house, until, major)
    await supervisor.stop(subscriber.id)
    data = house.clone(subscriber.data_dir, "data-clone")
    clone = replace(subscriber, id="ep-clone", data_dir=data, port=free_port)
    # While the parent sleeps its slot is free for whoever asks.
    status = await supervisor.start(clone)
    await value(supervisor, publisher.id, "INSERT INTO public.t VALUES (2)")
    assert await value(supervisor, clone.id, INHERITED) == 0
    assert await value(supervisor, clone.id, "SELECT count(*) FROM pg_subscription") == 1
    assert await value(supervisor, clone.id, "SHOW listen_addresses") == "127.0.0.1"
    assert int(await value(supervisor, clone.id, "SHOW max_logical_replication_workers")) > 0
    assert launcher.QUIET[1] not in process.arguments(status.pid)
    await supervisor.start(subscriber)
    await until(lambda: arrived(supervisor, subscriber, 2), within=60)
    assert not await arrived(supervisor, clone, 2)
    # Only its first start is special: what its user enables later stays.
    await value(supervisor, clone.id, "ALTER SUBSCRIPTION s SET (slot_name = 'own')")
    await supervisor.stop(clone.id)
    await supervisor.start(clone)
    assert await value(supervisor, clone.id, INHERITED) == 1


async def test_a_clone_whose_wal_brings_a_subscription_back_has_it_disabled(house, until):
    """The catalog's file was copied, or written, before the subscription came to be."""
    supervisor, _, subscriber = await subscribed(house, until)
    await supervisor.stop(subscriber.id, mode="immediate")
    data = house.clone(subscriber.data_dir, "data-clone")
    os.truncate(data / "global" / "6100", 0)
    clone = replace(subscriber, id="ep-clone", data_dir=data)
    status = await supervisor.start(clone)
    assert launcher.CHECK[1] in process.arguments(status.pid)
    assert await value(supervisor, clone.id, INHERITED) == 0
    assert await value(supervisor, clone.id, "SELECT count(*) FROM pg_subscription") == 1


@pytest.mark.parametrize("adopted", [False, True])
async def test_a_quiet_start_that_was_left_is_made_again(house, until, adopted):
    """Whoever adopts it, or starts it again, must not take it for the clone that users are to reach."""
    supervisor, _, subscriber = await subscribed(house, until)
    await supervisor.stop(subscriber.id)
    clone = replace(subscriber, id="ep-clone", data_dir=house.clone(subscriber.data_dir, "data-clone"))
    compute = supervisor._compute(clone.id)
    await supervisor._launch(compute, clone)
    await supervisor._await_ready(compute, launched=True)
    assert launcher.QUIET[1] in process.arguments(supervisor.status(clone.id).pid)
    if adopted:
        await supervisor.close()
        supervisor = house.supervisor()
        assert {each.id: each.state for each in await supervisor.adopt()}[clone.id] == "stopped"
    status = await supervisor.start(clone)
    assert launcher.QUIET[1] not in process.arguments(status.pid)
    assert await value(supervisor, clone.id, INHERITED) == 0


@pytest.mark.parametrize("logical", [False, True])
async def test_a_clone_keeps_no_slot_of_its_parent(house, logical):
    """Nobody reads from it, and without `wal_level` logical it would keep Postgres from starting."""
    supervisor = house.supervisor()
    parent = house.spec(logical_replication=True)
    await supervisor.start(parent)
    await value(supervisor, parent.id, "SELECT pg_create_logical_replication_slot('users', 'test_decoding')")
    await value(supervisor, parent.id, "SELECT pg_create_physical_replication_slot('other', true)")
    await supervisor.stop(parent.id)
    data = house.clone(parent.data_dir, "data-clone")
    clone = replace(parent, id="ep-clone", data_dir=data, logical_replication=logical)
    await supervisor.start(clone)
    assert await value(supervisor, clone.id, "SELECT count(*) FROM pg_replication_slots") == 0
    # Another compute on the parent's own directory is no clone.
    await supervisor.start(replace(parent, id="br-maintenance"))
    assert await value(supervisor, "br-maintenance", "SELECT count(*) FROM pg_replication_slots") == 2


@pytest.mark.root
async def test_a_clone_in_a_mount_namespace_is_silenced_too(house, until):
    supervisor, _, subscriber = await subscribed(house, until)
    await supervisor.stop(subscriber.id)
    real = house.clone(subscriber.data_dir, "data-clone")
    view = house.place / "view"
    view.mkdir()
    script = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'
    enter = (shutil.which("unshare"), "--mount", "/bin/sh", "-c", script, "sh", str(real), str(view))
    clone = replace(subscriber, id="ep-clone", data_dir=view, enter=enter)
    status = await supervisor.start(clone)
    assert launcher.QUIET[1] not in process.arguments(status.pid)
    assert await value(supervisor, clone.id, INHERITED) == 0
    assert (real / launcher.MARKER).read_text() == launcher.place_of(view)
    os.kill(status.pid, signal.SIGKILL)
    await until(lambda: house.crashes)
