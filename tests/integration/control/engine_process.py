"""An engine in a process of its own, to be killed: `python engine_process.py CONNINFO LEASE_SECONDS`.

Its recipe has three steps: each writes a row that says it was run and by whom. The second one never ends.
"""

from __future__ import annotations

import asyncio
import sys

from lamplighter.control.catalog.pool import open_pool
from lamplighter.control.operations.engine import Engine, Recipe, Step
from lamplighter.control.operations.model import Operation


async def main(conninfo: str, lease: float) -> None:
    catalog = await open_pool(conninfo)

    async def write(op: Operation, step: str) -> None:
        async with catalog.connection() as conn:
            await conn.execute("insert into effects values (%s, %s, 'killed')", (op.id, step))

    async def one(op: Operation) -> None:
        await write(op, "one")

    async def two(op: Operation) -> None:
        await write(op, "two")
        await asyncio.Event().wait()

    async def three(op: Operation) -> None:
        await write(op, "three")

    recipe = Recipe("k", (Step("one", one), Step("two", two), Step("three", three)))
    await Engine(catalog, {"k": recipe}, owner="host:killed", lease=lease).run()


asyncio.run(main(sys.argv[1], float(sys.argv[2])))
