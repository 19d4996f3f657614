"""The control plane is killed at every named point: whoever starts it again finds everything as asked."""

from __future__ import annotations

import pytest

from faults.scenarios import SCENARIOS, CreateBranch, DeleteBranch, Scenario, StartEndpoint, run
from faults.scene import Scene
from lamplighter import faults

pytestmark = pytest.mark.timeout(300)

ALL = [pytest.param(kind, point, id=f"{kind.__name__}-{point}") for kind in SCENARIOS for point in kind.points]


def test_every_point_has_a_scenario() -> None:
    """A fault point that is added without a scenario fails here."""
    covered = {point.partition(":")[0] for kind in SCENARIOS for point in kind.points}
    # Those of key rotation are killed in tests/faults/keys.
    assert covered == {point for point in faults.POINTS if not point.startswith("keys.")}


@pytest.mark.parametrize(("kind", "point"), ALL)
def test_killed_at_a_point(scene: Scene, kind: type[Scenario], point: str) -> None:
    """What was asked for is done after a restart; nobody else notices, and nothing is left behind."""
    run(scene, kind, point)


@pytest.mark.parametrize(
    ("kind", "points"),
    [
        pytest.param(CreateBranch, ("branch.create.after_clone", "endpoint.start.after_spawn"), id="CreateBranch"),
        pytest.param(StartEndpoint, ("endpoint.start.after_ready", "endpoint.start.after_ready"), id="StartEndpoint"),
        pytest.param(DeleteBranch, ("branch.delete.after_stop", "branch.delete.after_volume"), id="DeleteBranch"),
    ],
)
def test_killed_again_while_it_recovers(scene: Scene, kind: type[Scenario], points: tuple[str, ...]) -> None:
    """A second death, in the restart that takes the operation up again, is like the first."""
    run(scene, kind, *points)
