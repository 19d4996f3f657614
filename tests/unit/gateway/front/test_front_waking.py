"""Waiting for an endpoint, without one."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from lamplighter.gateway.errors import Refused
from lamplighter.gateway.ports import Route, WakeFailed
from lamplighter.gateway.waking import Waker
from support.waiting import eventually

ASLEEP = Route("ep-a", "p", "asleep", 1)
AWAKE = replace(ASLEEP, state="awake")
HOLDING = replace(ASLEEP, state="holding")


class Scene:
    """A waker, what it asked for, and who waits."""

    def __init__(self, patience=60.0, connected=True):
        self.asked = []
        self.waker = Waker(self.asked.append, lambda: connected, patience=patience)

    async def wait(self, route=ASLEEP, count=1):
        tasks = [asyncio.create_task(self.waker.changed(route, until=self.waker.deadline())) for _ in range(count)]
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
