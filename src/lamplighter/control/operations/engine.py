"""The engine: claims operations, runs the steps of their recipes, and records how they end.

Operations of one project run one at a time, in the order they were scheduled; different projects run side by side.
An engine may die at any moment: its lease runs out and whoever comes next claims the operation again, through the same
claim as the first time, and runs the steps that are not recorded as done. A step must therefore bear to run twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TypeVar

import psycopg
import structlog

from lamplighter.control.catalog.pool import Catalog, Connection
from lamplighter.control.errors import LeaseLost, Permanent, Skip
from lamplighter.control.operations import store
from lamplighter.control.operations.model import Operation
from lamplighter.control.operations.states import FATAL, Event, GiveUp, Retry, after_background_failure, after_failure
from lamplighter.control.operations.store import CHANNEL, Ending, FinishFunction, FollowUp, Lease

log = structlog.get_logger(__name__)

T = TypeVar("T")
StepFunction = Callable[[Operation], Awaitable[None]]
GiveUpFunction = Callable[[Operation, str], Awaitable[None]]
RetryPolicy = Callable[[int, datetime], Retry | GiveUp]
BackgroundPolicy = Callable[[int, datetime], Retry]

#: Seconds between looks at the catalog when nothing is known to fall due: the net below the notifications.
LONGEST_WAIT = 5.0
#: Seconds: what is overdue and yet cannot be claimed is locked by somebody who is about to let go.
SHORTEST_WAIT = 0.05
#: Seconds between tries to reach a catalog that does not answer.
RECONNECT_PAUSES = (0.05, 0.1, 0.2, 0.5, 1.0)
#: Seconds that a step may take, unless it says otherwise.
STEP_TIMEOUT = 120.0
#: How often `on_give_up` is tried, and the seconds that each try may take.
GIVE_UP_ATTEMPTS = 3
GIVE_UP_TIMEOUT = 60.0
#: Characters of an error that clients get to see.
ERROR_LENGTH = 1000


@dataclass(frozen=True, slots=True)
class Step:
    """One idempotent part of an operation. Its name is recorded: never rename a step that may be under way.

    `run` may raise `Permanent`, or any exception with an attribute `permanent` that is True (for those who must not
    import this package), to give up at once; or `Skip`, when there is nothing to do. Any other exception is a failure
    to be tried again. After `timeout` seconds the step is cancelled, which counts as a failure too, whatever the step
    makes of it. So what it started must end when it is cancelled: a thread, for one, does not.
    """

    name: str
    run: StepFunction
    timeout: float = STEP_TIMEOUT


@dataclass(frozen=True, slots=True)
class Recipe:
    """How operations of one kind are run. A failure is tried again as `states.after_failure` says.

    `on_give_up` gets the operation and the error before the failure is recorded; it may be called twice, and puts right
    what the steps left, also for the operations of the group behind it, which are cancelled without having begun.

    `on_finish` gets the operation and a connection inside the transaction that records its end as finished: what it
    writes there is committed with that end or not at all, and costs no commit of its own. It is not called when the
    lease is gone or a step raised `Skip`. It must do nothing but a little SQL on that connection. When it raises, that
    counts as the failure of the last step, which runs again; the steps before it do not.

    `persistent` is for what must happen in the end, such as a deletion whose rows are hidden already. `Permanent` then
    is a failure like others. When the operation fails for its client, or is cancelled since one before it in its group
    failed, a copy is tried again in the background for ever (`store.FollowUp`), also after a restart. By then the
    project may have changed, or be gone: the steps, all of which run again, must bear that.
    """

    kind: str
    steps: tuple[Step, ...]
    on_give_up: GiveUpFunction | None = None
    on_finish: FinishFunction | None = None
    persistent: bool = False


class _NotFinished(Exception):
    """Carries what `on_finish` raised past `_write`, which sits out what looks like a catalog that is away."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        super().__init__(str(error))


@dataclass(slots=True)
class _Run:
    """A project at work in this engine: its operation, and until when (loop time) the lease surely holds."""

    operation: Operation
    sure_until: float
    task: asyncio.Task[None] | None = None
    timer: asyncio.Timeout | None = None
    ending: bool = False

    def extend(self, until: float) -> None:
        self.sure_until = until
        # A timer that has fired cannot be set again: the run is ending then.
        if self.timer is not None and not self.timer.expired():
            with suppress(RuntimeError):
                self.timer.reschedule(until)


class Engine:
    """Runs the operations of a catalog until it is drained or its `run()` is cancelled.

    `owner` must be unique among the engines that are alive; an engine that comes back under the same name takes up its
    former operations at once. `lease` is in seconds. The catalog's pool needs room for `concurrency` + 2 connections
    beside its other users.
    """

    def __init__(
        self,
        catalog: Catalog,
        recipes: Mapping[str, Recipe],
        *,
        owner: str,
        concurrency: int = 8,
        lease: float = 30.0,
        longest_wait: float = LONGEST_WAIT,
        retry_policy: RetryPolicy = after_failure,
        background_policy: BackgroundPolicy = after_background_failure,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._catalog = catalog
        self._recipes = recipes
        self._lease = Lease(owner, lease)
        self._concurrency = concurrency
        self._longest_wait = longest_wait
        self._retry_policy = retry_policy
        self._background_policy = background_policy
        self._persistent = tuple(recipe.kind for recipe in recipes.values() if recipe.persistent)
        self._clock = clock
        self._runs: dict[str, _Run] = {}
        self._wake = asyncio.Event()
        self._progress = asyncio.Event()
        self._stopping = False
        self._grace = 0.0
        self._stopped = asyncio.Event()
        self._stopped.set()

    @property
    def owner(self) -> str:
        return self._lease.owner

    def wake(self) -> None:
        """Look at the catalog now: for after a commit that scheduled something, in the engine's own event loop."""
        self._wake.set()

    async def run(self) -> None:
        """Work until `drain()` is called or the task is cancelled; either way no lease of ours is left behind."""
        self._stopping = False
        self._stopped.clear()
        helpers = [asyncio.create_task(self._listen()), asyncio.create_task(self._keep_leases())]
        log.info("engine.started", owner=self.owner, concurrency=self._concurrency, lease_seconds=self._lease.seconds)
        try:
            await self._dispatch()
            await self._finish_runs()
        finally:
            await self._abandon(helpers)
            self._stopped.set()
            log.info("engine.stopped", owner=self.owner)

    async def drain(self, timeout: float = 10.0) -> None:  # noqa: ASYNC109 - after it, what runs is cut off
        """Claim nothing more, let what runs end within `timeout` seconds, then cut it off and free the leases."""
        self._stopping = True
        self._grace = timeout
        self._wake.set()
        await self._stopped.wait()

    async def wait_idle(self, project_id: str | None = None, *, timeout: float = 30.0) -> None:  # noqa: ASYNC109
        """Return when no operation of the project (of any, for None) is left to run. Raises TimeoutError.

        Operations that failed are done too, whatever is tried again in the background. Other engines may do the work.
        """
        async with asyncio.timeout(timeout):
            while True:
                progress = self._progress
                with suppress(psycopg.OperationalError):
                    async with self._catalog.connection() as conn:
                        if not await store.is_busy(conn, project_id):
                            return
                # What other engines do shows in the catalog only.
                with suppress(TimeoutError):
                    async with asyncio.timeout(0.1):
                        await progress.wait()

    # Finding work

    async def _dispatch(self) -> None:
        failures = 0
        # Asks for the cancellation too: before Python 3.12 what we wait for (wait_for(), in the pool) can lose it.
        while not self._stopping and not _is_cancelled():
            self._wake.clear()
            try:
                pause = await self._claim()
                failures = 0
            except psycopg.Error as error:
                pause = _pause(failures)
                failures += 1
                log.warning("engine.catalog_unreachable", error=str(error), retry_in_seconds=pause)
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wake.wait()

    async def _claim(self) -> float:
        free = self._concurrency - len(self._runs)
        if free <= 0:
            # The end of any run wakes us.
            return self._longest_wait
        async with self._catalog.connection() as conn:
            sure_until = self._sure_until()
            claimed, due = await store.claim(conn, self._lease, limit=free, busy=self._runs)
        for operation in claimed:
            self._start(operation, sure_until)
        return self._longest_wait if due is None else min(max(due, SHORTEST_WAIT), self._longest_wait)

    async def _listen(self) -> None:
        failures = 0
        while True:
            try:
                async with self._catalog.listening(CHANNEL) as payloads:
                    failures = 0
                    # What was notified while nobody listened.
                    self._wake.set()
                    async for _ in payloads:
                        self._wake.set()
            except (psycopg.Error, OSError) as error:
                log.warning("engine.listen_lost", error=str(error))
            await asyncio.sleep(_pause(failures))
            failures += 1

    # Leases

    async def _keep_leases(self) -> None:
        interval = self._lease.seconds / 4
        while True:
            await asyncio.sleep(interval)
            try:
                async with asyncio.timeout(interval):
                    await self._extend_leases()
            except (psycopg.Error, TimeoutError) as error:
                log.warning("engine.heartbeat_failed", error=str(error) or "no answer in time")

    async def _extend_leases(self) -> None:
        held = {run.operation.id: run for run in self._runs.values() if not run.ending}
        if not held:
            return
        async with self._catalog.connection() as conn:
            sure_until = self._sure_until()
            kept = await store.extend(conn, self._lease, held)
        for operation_id, run in held.items():
            if operation_id in kept:
                run.extend(sure_until)
            elif run.operation.id == operation_id and not run.ending:
                # Otherwise it has just ended, as it should.
                run.extend(self._now())

    # Running

    def _start(self, operation: Operation, sure_until: float) -> None:
        run = _Run(operation, sure_until)
        self._runs[operation.project_id] = run
        run.task = asyncio.create_task(self._work(run), name=f"operation-{operation.id}")

    async def _work(self, run: _Run) -> None:
        """Run the operations of one project until none is due."""
        try:
            following: Operation | None = run.operation
            while following is not None:
                run.operation, run.ending = following, False
                with structlog.contextvars.bound_contextvars(
                    operation_id=str(following.id), project_id=following.project_id, kind=following.kind
                ):
                    following = await self._run_one(run)
                self._show_progress()
        finally:
            del self._runs[run.operation.project_id]
            # Something may have been scheduled for this project between our last look and the commit of its end.
            self._wake.set()
            self._show_progress()

    async def _run_one(self, run: _Run) -> Operation | None:
        """Run one operation, as long as its lease holds; answers the next of the project, claimed already."""
        try:
            async with asyncio.timeout_at(run.sure_until) as run.timer:
                outcome = await self._run_steps(run)
                run.ending = True
                return await self._record(run, outcome)
        except (TimeoutError, LeaseLost):
            # Nothing to undo: whoever claims it next goes on where the record ends.
            log.warning("operation.lease_lost")
        except Exception:
            log.exception("engine.fault")
            # We would claim it again at once, and most likely fail again.
            await asyncio.sleep(RECONNECT_PAUSES[-1])
        finally:
            run.timer = None
        return None

    async def _run_steps(self, run: _Run) -> Ending | Exception:
        """Run what is not done yet. Answers how that ended, or what a step raised."""
        recipe = self._recipes.get(run.operation.kind)
        if recipe is None:
            return self._ending(
                run, Event.REFUSED, error=f"this server cannot run operations of kind {run.operation.kind}"
            )
        log.info("operation.started", action=run.operation.action, steps_done=list(run.operation.steps_done))
        waiting = [step for step in recipe.steps if step.name not in run.operation.steps_done]
        for step in waiting:
            try:
                await _run_step(step, run.operation)
            except Skip:
                return self._ending(run, Event.SKIPPED)
            except Exception as error:  # noqa: BLE001 - any failure of a step is the engine's to deal with
                return error
            run.operation = replace(run.operation, steps_done=(*run.operation.steps_done, step.name))
            if step is not waiting[-1]:
                # The last step is recorded together with the end.
                await self._write(lambda conn: store.record_step(conn, self._lease, run.operation))
        return self._ending(run, Event.FINISHED)

    def _ending(self, run: _Run, event: Event, *, error: str | None = None, failures: int | None = None) -> Ending:
        operation = run.operation
        return Ending(event, operation.steps_done, error, operation.failures_count if failures is None else failures)

    async def _record(self, run: _Run, outcome: Ending | Exception) -> Operation | None:
        if isinstance(outcome, Ending):
            try:
                return await self._end(run, outcome)
            except _NotFinished as failed:
                outcome = failed.error
                # What the last step has brought about does not hold any more: it is to be run again.
                run.operation = replace(run.operation, steps_done=run.operation.steps_done[:-1])
        failures = run.operation.failures_count + 1
        error = _describe(outcome)
        verdict = self._judge(run.operation, outcome, failures)
        if isinstance(verdict, Retry):
            log.warning(
                "operation.retry",
                error=error,
                failures_count=failures,
                retry_at=verdict.at.isoformat(),
                exc_info=outcome,
            )
            await self._write(lambda conn: store.postpone(conn, self._lease, run.operation, error=error, retry=verdict))
            return None
        log.error("operation.failed", error=error, failures_count=failures, exc_info=outcome)
        # Before the record: a crash in between calls it again, after the record it would never be called.
        run.ending = False
        await self._call_on_give_up(run.operation, error)
        run.ending = True
        return await self._end(run, self._ending(run, Event.GIVEN_UP, error=error, failures=failures))

    def _judge(self, operation: Operation, error: Exception, failures: int) -> Retry | GiveUp:
        if not operation.blocking:
            return self._background_policy(failures, self._clock())
        if _is_permanent(error) and operation.kind not in self._persistent:
            return GiveUp()
        return self._retry_policy(failures, self._clock())

    async def _end(self, run: _Run, ending: Ending) -> Operation | None:
        operation = run.operation
        if ending.event in FATAL:
            again = self._background_policy(max(ending.failures, 1), self._clock())
            ending = replace(ending, follow_up=FollowUp(self._persistent, again.at))
        on_finish = self._on_finish(operation) if ending.event is Event.FINISHED else None

        async def write(conn: Connection) -> tuple[bool, Operation | None]:
            # Of the next operation; that of this one is in the timer already.
            run.sure_until = self._sure_until()
            return await store.end(
                conn, self._lease, operation, ending, claim_next=not self._stopping, on_finish=on_finish
            )

        held, following = await self._write(write)
        if held:
            log.info("operation.finished", result=ending.event.value, failures_count=ending.failures)
        else:
            log.warning("operation.lease_lost")
        return following

    def _on_finish(self, operation: Operation) -> FinishFunction | None:
        recipe = self._recipes[operation.kind]
        function = recipe.on_finish
        if function is None:
            return None

        async def call(operation: Operation, conn: Connection) -> None:
            try:
                await function(operation, conn)
            except Exception as error:
                if conn.closed:
                    # The catalog is away: that is for `_write` to sit out, as at any other time.
                    raise
                raise _NotFinished(error) from error

        return call

    async def _call_on_give_up(self, operation: Operation, error: str) -> None:
        recipe = self._recipes[operation.kind]
        if recipe.on_give_up is None:
            return
        for attempt in range(GIVE_UP_ATTEMPTS):
            try:
                async with asyncio.timeout(GIVE_UP_TIMEOUT):
                    await recipe.on_give_up(operation, error)
            except Exception:
                # The project must not stay locked for ever by what tidies up after a failure.
                log.exception("operation.give_up_failed", attempt=attempt + 1)
                await asyncio.sleep(_pause(attempt))
            else:
                return

    async def _write(self, write: Callable[[Connection], Awaitable[T]]) -> T:
        """Do it however long the catalog is away: the timer of the lease ends this when it must end."""
        failures = 0
        while True:
            try:
                async with self._catalog.connection() as conn:
                    return await write(conn)
            except (psycopg.OperationalError, psycopg.InterfaceError) as error:
                pause = _pause(failures)
                failures += 1
                log.warning("engine.catalog_unreachable", error=str(error), retry_in_seconds=pause)
            await asyncio.sleep(pause)

    # Stopping

    async def _finish_runs(self) -> None:
        tasks = [run.task for run in self._runs.values() if run.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=self._grace)

    async def _abandon(self, helpers: list[asyncio.Task[None]]) -> None:
        """End all tasks and let go of what they had claimed, so that nobody need wait for the leases."""
        cut_off = len(self._runs)
        tasks = {*helpers, *(run.task for run in self._runs.values() if run.task is not None)}
        waiting = tasks
        while waiting:
            # Again and again: what a task is waiting in may lose a cancellation (see _dispatch).
            for task in waiting:
                task.cancel()
            _, waiting = await asyncio.wait(waiting, timeout=1.0)
        for task in tasks:
            if not task.cancelled() and task.exception() is not None:
                log.error("engine.task_failed", exc_info=task.exception())
        try:
            async with asyncio.timeout(2), self._catalog.connection() as conn:
                await store.release(conn, self.owner)
        except (psycopg.Error, TimeoutError) as error:
            log.warning("engine.leases_not_released", error=str(error), operations=cut_off)

    def _show_progress(self) -> None:
        self._progress.set()
        self._progress = asyncio.Event()

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _sure_until(self) -> float:
        # Taken just before the query that gets the lease. Not earlier: waiting for a connection may outlast it. Not
        # after the answer: the catalog counts from the query.
        return self._now() + self._lease.seconds


def _pause(failures: int) -> float:
    return RECONNECT_PAUSES[min(failures, len(RECONNECT_PAUSES) - 1)]


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def _run_step(step: Step, operation: Operation) -> None:
    late = False
    try:
        async with asyncio.timeout(step.timeout) as timer:
            try:
                await step.run(operation)
            finally:
                late = timer.expired()
    except asyncio.CancelledError:
        if _is_cancelled():
            raise
        # Something the step waited for was cancelled, not we.
        raise RuntimeError(f"step {step.name} was cancelled from within") from None
    except Exception as error:
        if not late:
            raise
        # What the step raised in its stead tells how it was ended, not why.
        raise _too_long(step) from error
    if late:
        # It went on or ended as if nothing had happened: nobody knows what it left out.
        raise _too_long(step)


def _too_long(step: Step) -> TimeoutError:
    return TimeoutError(f"the step {step.name} did not end within {step.timeout:g} s")


def _is_permanent(error: Exception) -> bool:
    return isinstance(error, Permanent) or getattr(error, "permanent", False) is True


def _describe(error: Exception) -> str:
    """What clients are told. Postgres stores no NUL in text."""
    return (str(error) or type(error).__name__).replace("\x00", "")[:ERROR_LENGTH]
