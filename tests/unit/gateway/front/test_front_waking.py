"""Waiting for an endpoint, without one."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from lamplighter.gateway.admission import WAKES_AT_ONCE
from lamplighter.gateway.errors import Refused
from lamplighter.gateway.ports import Route, WakeFailed
from lamplighter.gateway.waking import Waker
from support.waiting import eventually

ASLEEP = Route("ep-a", "p", "asleep", 1)
AWAKE = replace(ASLEEP, state="awake")
HOLDING = replace(ASLEEP, state="holding")
DISABLED = replace(ASLEEP, state="disabled")
STRANGER = "192.0.2.9"


class Scene:
    """A waker, what it asked for, and who waits."""

    def __init__(self, patience=60.0, connected=True):
        self.asked = []
        self.waker = Waker(self.asked.append, lambda: connected, patience=patience)

    async def wait(self, route=ASLEEP, count=1, **values):
        until = self.waker.deadline()
        tasks = [asyncio.create_task(self.waker.changed(route, until=until, **values)) for _ in range(count)]
        await eventually(lambda: self.waker.waiting >= count)
        return tasks


async def test_one_request_for_all_who_wait():
    """All go on when the route is awake, and nobody is left."""
    scene = Scene()
    tasks = await scene.wait(count=100)
    assert scene.asked == ["ep-a"]
    scene.waker.told(HOLDING)
    await asyncio.sleep(0)
    assert not any(task.done() for task in tasks)
    scene.waker.told(AWAKE)
    await asyncio.gather(*tasks)
    assert scene.waker.waiting == 0


async def test_a_held_route_is_not_asked_for_until_it_sleeps():
    """Its compute is being stopped: then it is asked for, once."""
    scene = Scene()
    (task,) = await scene.wait(HOLDING)
    assert scene.asked == []
    scene.waker.told(ASLEEP)
    scene.waker.told(ASLEEP)
    assert scene.asked == ["ep-a"]
    scene.waker.told(AWAKE)
    await task


async def test_a_request_that_came_across_a_stop_is_made_again():
    """The platform may have taken the first one for settled, since the compute ran then."""
    scene = Scene()
    (task,) = await scene.wait(AWAKE)
    scene.waker.told(HOLDING)
    scene.waker.told(ASLEEP)
    assert scene.asked == ["ep-a", "ep-a"]
    scene.waker.told(AWAKE)
    await task


async def test_failures_reach_all_and_the_next_one_asks_anew():
    """With the platform's own words."""
    scene = Scene()
    tasks = await scene.wait(count=2)
    scene.waker.failed(WakeFailed("ep-a", "53100", "no space"))
    for task in tasks:
        with pytest.raises(Refused, match="no space"):
            await task
    await scene.wait()
    assert scene.asked == ["ep-a", "ep-a"]
    scene.waker.told(AWAKE)


@pytest.mark.parametrize(("connected", "said"), [(True, "was not ready"), (False, "control plane does not answer")])
async def test_deadlines(connected, said):
    """Who waited in vain is told whose fault it is."""
    scene = Scene(patience=0.01, connected=connected)
    with pytest.raises(Refused, match=said):
        await scene.waker.changed(ASLEEP, until=scene.waker.deadline())
    assert scene.waker.waiting == 0


async def test_a_new_platform_hears_of_requests():
    """Of each that is open, once."""
    scene = Scene()
    (task,) = await scene.wait()
    scene.waker.again()
    assert scene.asked == ["ep-a", "ep-a"]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    scene.waker.again()
    assert scene.asked == ["ep-a", "ep-a"]


async def test_a_route_that_goes_lets_who_waits_look():
    """They find that it is gone."""
    scene = Scene()
    (task,) = await scene.wait()
    scene.waker.gone("ep-a")
    await task


async def failing(scene, number, payer):
    """A wake of another endpoint, which comes to nothing."""
    endpoint_id = f"ep-{number}"
    (task,) = await scene.wait(replace(ASLEEP, endpoint_id=endpoint_id), payer=payer)
    scene.waker.failed(WakeFailed(endpoint_id, "57P03", "it failed"))
    with pytest.raises(Refused, match="it failed"):
        await task


async def test_strangers_wake_so_many():
    """Beyond that they are refused with a code by which clients know to wait; others are not, nor is this host."""
    scene = Scene()
    for number in range(WAKES_AT_ONCE):
        await failing(scene, number, STRANGER)
    with pytest.raises(Refused, match="too many have been woken from your address") as refused:
        await scene.waker.changed(ASLEEP, until=scene.waker.deadline(), payer=STRANGER)
    assert refused.value.refusal.code == "53300"
    assert len(scene.asked) == WAKES_AT_ONCE
    assert scene.waker.waiting == 0
    for payer in (None, "192.0.2.10"):
        await failing(scene, 0, payer)


async def test_a_herd_of_one_stranger_is_one_wake():
    """It is paid for once, also where the payment comes before the wait; the next one is paid for anew."""
    scene = Scene()
    for _ in range(5 * WAKES_AT_ONCE):
        scene.waker.admit(ASLEEP, STRANGER)
    tasks = await scene.wait(count=5 * WAKES_AT_ONCE, payer=STRANGER)
    scene.waker.told(HOLDING)
    scene.waker.admit(HOLDING, STRANGER)
    scene.waker.told(AWAKE)
    await asyncio.gather(*tasks)
    for number in range(WAKES_AT_ONCE - 1):
        await failing(scene, number, STRANGER)
    with pytest.raises(Refused):
        scene.waker.admit(ASLEEP, STRANGER)


async def test_strangers_come_along_with_others():
    """Where somebody has asked already, nobody pays."""
    scene = Scene()
    (first,) = await scene.wait()
    for _ in range(2 * WAKES_AT_ONCE):
        scene.waker.admit(ASLEEP, STRANGER)
    scene.waker.told(AWAKE)
    await first
    for number in range(WAKES_AT_ONCE):
        await failing(scene, number, STRANGER)


async def test_a_pooled_wake_is_one_wake():
    """Whoever waits for the pooler of an endpoint that is awake by then causes no start."""
    scene = Scene()
    for _ in range(WAKES_AT_ONCE):
        (compute,) = await scene.wait(payer=STRANGER)
        scene.waker.told(AWAKE)
        await compute
        (pooler,) = await scene.wait(AWAKE, payer=STRANGER)
        scene.waker.told(AWAKE)
        await pooler
    with pytest.raises(Refused, match="too many have been woken"):
        scene.waker.admit(ASLEEP, STRANGER)


@pytest.mark.parametrize("route", [AWAKE, HOLDING, DISABLED])
async def test_who_causes_no_start_is_not_counted(route):
    """Nor is a start that comes afterwards paid for by that."""
    scene = Scene()
    for _ in range(2 * WAKES_AT_ONCE):
        scene.waker.admit(route, STRANGER)
    for number in range(WAKES_AT_ONCE):
        await failing(scene, number, STRANGER)
    with pytest.raises(Refused):
        scene.waker.admit(ASLEEP, STRANGER)
