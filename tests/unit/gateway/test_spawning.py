"""Where what lies beside a gateway's socket lies, before any gateway is started."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lamplighter.gateway import spawning
from lamplighter.gateway.errors import SpawnFailed
from lamplighter.gateway.spawning import LONGEST_PATH, Paths

NOWHERE = Path("/there-is-no-such-directory")


async def test_a_path_that_is_too_long_for_the_doors_beside_it_is_refused():
    """The socket itself could be bound there."""
    path = NOWHERE / ("x" * (LONGEST_PATH - 10 - len(os.fsencode(NOWHERE))))
    assert len(os.fsencode(path)) < LONGEST_PATH
    with pytest.raises(SpawnFailed, match="too long"):
        await spawning.start(path, NOWHERE / "log")


def test_nothing_beside_a_socket_has_a_longer_path_than_a_door_at_the_last_port():
    paths = Paths(NOWHERE / "gateway-00000000.sock")
    assert max((paths.socket, paths.lock, paths.keep, paths.longest), key=lambda path: len(str(path))) == paths.longest
