"""The gateway's log, which does not grow for ever."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from lamplighter.gateway.logs import LARGEST
from support.waiting import eventually

#: A process whose output goes to a log that it looks at all the time.
TALKING = """
import asyncio, sys
from pathlib import Path
from lamplighter.gateway.logs import LogFile

async def main(path, former):
    log = LogFile(path, largest=1000)
    log.open()
    keeping = asyncio.create_task(log.keep(every=0.001))
    for word in "ab":
        print(word * 1001, flush=True)
        while not (former.exists() and former.read_text()[0] == word):
            await asyncio.sleep(0.001)
    print("out", flush=True)
    print("err", file=sys.stderr, flush=True)
    log.leave()
    print("c" * 1001, flush=True)
    log.look()
    keeping.cancel()
    # The other gateway begins a file, which gets lost as well.
    path.rename(path.with_name("other"))
    path.touch()
    log.look()
    print("d", flush=True)
    path.rename(path.with_name("lost"))
    log.look()
    print("e", flush=True)

asyncio.run(asyncio.wait_for(main(Path(sys.argv[1]), Path(sys.argv[1] + ".1")), 20))
"""


def events(path):
    return [json.loads(line)["event"] for line in path.read_text().splitlines() if line.startswith("{")]


def test_a_large_log_becomes_the_former_one(tmp_path):
    """Nothing of it is lost but what was former before; whoever leaves it to another gateway follows that one."""
    path = tmp_path / "x.log"
    subprocess.run([sys.executable, "-c", TALKING, path], check=True, timeout=60)
    assert (tmp_path / "x.log.1").read_text() == "b" * 1001 + "\n"
    assert (tmp_path / "other").read_text() == "out\nerr\n" + "c" * 1001 + "\n"
    assert (tmp_path / "lost").read_text() == "d\n"
    assert path.read_text() == "e\n"
    assert len(list(tmp_path.iterdir())) == 4


#: A process that looks at its output by the gateway's own interval, on a clock on which a day takes no time.
KEEPING = """
import asyncio, selectors, sys
from pathlib import Path
from lamplighter.gateway.logs import LogFile

class Soon(selectors.DefaultSelector):
    now = 0.0

    def select(self, timeout=None):
        self.now += timeout or 0.0
        return super().select(0)

def soon():
    selector = Soon()
    loop = asyncio.SelectorEventLoop(selector)
    loop.time = lambda: selector.now
    return loop

async def main(path, former):
    log = LogFile(path, largest=1000)
    log.open()
    keeping = asyncio.create_task(log.keep())
    print("a" * 1001, flush=True)
    await asyncio.sleep(61)
    print("b", flush=True)
    keeping.cancel()

with asyncio.Runner(loop_factory=soon) as runner:
    runner.run(main(Path(sys.argv[1]), Path(sys.argv[1] + ".1")))
"""


def test_it_is_looked_at_once_a_minute(tmp_path):
    path = tmp_path / "x.log"
    subprocess.run([sys.executable, "-c", KEEPING, path], check=True, timeout=60)
    assert path.read_text() == "b\n"


#: A process that looks at a log which is as it should be, and tells how far its output's own handle has come.
LOOKING = """
import os, sys
from pathlib import Path
from lamplighter.gateway.logs import LogFile

log = LogFile(Path(sys.argv[1]))
log.open()
print("five", flush=True)
log.look()
print(os.lseek(1, 0, os.SEEK_CUR), flush=True)
"""


def test_a_log_that_is_fine_is_left_open(tmp_path):
    path = tmp_path / "x.log"
    subprocess.run([sys.executable, "-c", LOOKING, path], check=True, timeout=60)
    assert path.read_text() == "five\n5\n"


async def test_it_is_looked_at_when_a_gateway_starts_and_when_a_platform_comes(make_platform, place):
    """So a gateway that a platform adopts has no larger one than another."""
    (place / "g").mkdir()
    path = place / "g" / "gateway.log"
    path.write_bytes(b"")
    os.truncate(path, LARGEST + 1)
    former = path.with_name("gateway.log.1")
    async with make_platform(place=place) as platform:
        assert former.stat().st_size == LARGEST + 1
        assert "gateway.started" in events(path)
        os.truncate(path, LARGEST + 2)
        await platform.leave()
        await platform.connect()
        assert former.stat().st_size > LARGEST + 1
        await eventually(lambda: events(path) == ["gateway.platform_connected"])


async def test_why_a_wake_failed_is_in_it(platform, endpoint):
    """With the endpoint's id and all that was told, since strangers are told less."""
    platform.fail(endpoint.id, "57P03", "the compute could not be started", "the disk is full", "see there")
    await eventually(lambda: "gateway.wake_failed" in events(platform.gateway.log))
    (line,) = [one for one in platform.gateway.log.read_text().splitlines() if "wake_failed" in one]
    assert [json.loads(line)[key] for key in ("endpoint_id", "detail", "hint")] == [
        endpoint.id,
        "the disk is full",
        "see there",
    ]
