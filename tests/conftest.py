"""What every test may use, and which tests an ordinary user cannot run."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from support.lamp import Lamp, temporary_lamp

# Properties are about results: with a deadline each would be a timed assertion on a busy machine. No database of
# examples either: the checkout may not be ours to write to.
settings.register_profile("untimed", deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what needs root when we are not: said in pytest's own summary as deselected, never as passed."""
    if os.geteuid() == 0:
        return
    kept = [item for item in items if item.get_closest_marker("root") is None]
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept


@pytest.fixture(scope="session")
def lamp() -> Iterator[Lamp]:
    """A platform that tests share: each makes its own projects in it, and must not stop it."""
    with temporary_lamp() as platform:
        yield platform
