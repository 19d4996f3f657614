"""Learn at once that a process has ended, our own child or not, without polling."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal


class ExitWatch:
    """Holds a pidfd, so that signals cannot hit a later process of the same pid.

    `ended` is done when the process is gone: with its wait status if it was our child, else with None.
    """

    def __init__(self, pid: int) -> None:
        """Raises ProcessLookupError if there is no such process."""
        self.pid = pid
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[int | None] = self._loop.create_future()
        self._pidfd = os.pidfd_open(pid)
        self._loop.add_reader(self._pidfd, self._on_exit)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens if the process has ended."""
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    async def wait(self, within: float) -> bool:
        """Whether the process ends within so many seconds."""
        done, _ = await asyncio.wait({self.ended}, timeout=within)
        return bool(done)

    def close(self) -> None:
        """Stop watching; the process goes on."""
        if self._pidfd >= 0:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1

    def _on_exit(self) -> None:
        self.close()
        status: int | None = None
        # A child of a former control plane is its new parent's to reap.
        with contextlib.suppress(ChildProcessError):
            _, status = os.waitpid(self.pid, os.WNOHANG)
        if not self.ended.done():
            self.ended.set_result(status)


def describe_status(status: int | None) -> str:
    """How a process ended, as the part of a sentence after "the postmaster"."""
    if status is None:
        return "is gone"
    if os.WIFSIGNALED(status):
        return f"was ended by {signal.Signals(os.WTERMSIG(status)).name}"
    return f"ended with status {os.waitstatus_to_exitcode(status)}"
