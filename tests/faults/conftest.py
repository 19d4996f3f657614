"""A platform that many tests use, each of which kills it and leaves it running."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from faults.scene import Scene, scene_on


@pytest.fixture(scope="module")
def best_scene() -> Iterator[Scene]:
    with scene_on("best") as scene:
        yield scene


@pytest.fixture
def scene(best_scene: Scene) -> Scene:
    """The scene on the driver that this machine offers, its platform running."""
    best_scene.revive()
    return best_scene
