"""What every test may use, and which tests an ordinary user cannot run."""

from __future__ import annotations

import gc
import os
import signal
import tempfile
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from support.lamp import Lamp, temporary_lamp

# Properties are about results: with a deadline each would be a timed assertion on a busy machine. No database of
# examples either: the checkout may not be ours to write to. And the same examples in each run, so that what fails is
# the change: `--hypothesis-profile=search` looks for others.
settings.register_profile("search", deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("same", settings.get_profile("search"), derandomize=True)
settings.load_profile("same")


#: What would make a test talk to the server of whoever runs the tests.
_THEIRS = ("NEON_API_KEY", "NEON_API_HOST", "NEON_PROJECT_ID", "LAMP_CONTEXT", "LAMP_DATA_DIR", "LAMP_CATALOG_URL")


def pytest_configure(config: pytest.Config) -> None:
    """Tests neither see nor change the settings of whoever runs them, nor what their shell does with signals."""
    for name in _THEIRS:
        os.environ.pop(name, None)
    home = tempfile.TemporaryDirectory(prefix="lamp-config-")
    config.add_cleanup(home.cleanup)
    os.environ["XDG_CONFIG_HOME"] = home.name
    # Under nohup, or in the background of a script, these are ignored, and so they would be in what tests start.
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what needs root when we are not: said in pytest's own summary as deselected, never as passed."""
    if os.geteuid() == 0:
        return
    kept = [item for item in items if item.get_closest_marker("root") is None]
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept


def pytest_collection_finish() -> None:
    """Garbage is looked for among what tests make, not among ten thousand collected ones: a seventh of all CPU."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """What async tests run on; those of the SDK, which runs on trio too, say so themselves."""
    return "asyncio"


@pytest.fixture(scope="session")
def lamp() -> Iterator[Lamp]:
    """A platform that tests share: each makes its own projects in it, and must not stop it."""
    with temporary_lamp() as platform:
        yield platform
