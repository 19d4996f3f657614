import asyncio, pytest
from lamplighter.control.operations.engine import Engine
CUT_OTHERS = (
    "select pg_terminate_backend(pid) from pg_stat_activity"
    " where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'"
)
async def nothing(op): ...
async def test_20(bench, recipe):
    ran = []
    async def cut(op) -> None:
        ran.append("cut")
        await bench.execute(CUT_OTHERS)
    async def after(op) -> None:
        ran.append("after")
    async with bench.engine(recipe("k", cut=cut, after=after)) as engine:
        ops = await bench.schedule("p", "k", "k")
        await bench.until_row(ops[1], lambda row: row["finished_at"] is not None)
        (more,) = await bench.schedule("p", "k")
        await engine.wait_idle()

async def test_23(bench, recipe):
    begun = asyncio.Event()
    async def step(op) -> None:
        begun.set()
        await asyncio.Event().wait()
    engine = Engine(bench.catalog, {"k": recipe("k", step=step)}, owner="engine")
    task = asyncio.create_task(engine.run())
    await bench.schedule("p", "k")
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

async def test_24(bench, recipe):
    engine = Engine(bench.catalog, {"k": recipe("k", step=nothing)}, owner="engine")
    for _ in range(2):
        async with bench.running(engine):
            await bench.schedule("p", "k")
            await engine.wait_idle()
