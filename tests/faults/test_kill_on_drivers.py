"""The control plane is killed where a storage driver could go wrong: the same for each of them as for the best one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from faults.scenarios import CreateBranch, CreateBranchWithStandby, DeleteBranch, DeleteProject, Scenario, run
from faults.scene import Scene, scene_on

pytestmark = pytest.mark.timeout(300)

#: The moments when volumes have just been made, opened or removed.
POINTS = [
    pytest.param(CreateBranch, "branch.create.after_clone", id="CreateBranch"),
    pytest.param(CreateBranchWithStandby, "endpoint.start.after_spawn:2", id="CreateBranchWithStandby"),
    pytest.param(DeleteBranch, "branch.delete.after_stop", id="DeleteBranch"),
    pytest.param(DeleteProject, "project.delete.after_volumes", id="DeleteProject"),
]


@pytest.fixture(scope="module")
def copies() -> Iterator[Scene]:
    with scene_on("copy") as scene:
        yield scene


@pytest.fixture(scope="module", params=["btrfs", "reflink"])
def pooled(request: pytest.FixtureRequest) -> Iterator[Scene]:
    with scene_on(request.param) as scene:
        yield scene


@pytest.mark.parametrize(("kind", "point"), POINTS[::2])
def test_killed_with_plain_copies(copies: Scene, kind: type[Scenario], point: str) -> None:
    """Where every branch is a copy, file by file."""
    copies.revive()
    run(copies, kind, point)


@pytest.mark.root
@pytest.mark.parametrize(("kind", "point"), POINTS)
def test_killed_in_a_pool(pooled: Scene, kind: type[Scenario], point: str) -> None:
    """Where a branch is a snapshot (btrfs) or a clone of each file (XFS)."""
    pooled.revive()
    run(pooled, kind, point)
