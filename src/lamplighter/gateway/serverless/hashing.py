"""What a login costs is done in threads of its own: Python's hashing lets the event loop go on meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_T = TypeVar("_T")

#: Few: nobody's logins are to take all processors of the host.
_THREADS = ThreadPoolExecutor(2, thread_name_prefix="scram")


async def apart(work: Callable[[], _T]) -> _T:
    """Call it in one of the threads."""
    return await asyncio.get_running_loop().run_in_executor(_THREADS, work)
