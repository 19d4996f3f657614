"""How far it is proven that a store took a value."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from lamplighter.keys.proof import level_of
from lamplighter.keys.sinks.base import Receipt

WROTE = datetime(2026, 1, 1, 12, 0, 0, 500_000, tzinfo=UTC)
BEFORE = WROTE - timedelta(days=90)


@pytest.mark.parametrize(
    ("before", "receipt", "after", "level"),
    [
        pytest.param(None, Receipt(), None, None, id="no such secret"),
        pytest.param(None, Receipt(), Receipt(), "accepted", id="the name is all it says"),
        pytest.param(None, Receipt(version="2"), Receipt(version="2"), "metadata", id="our version"),
        pytest.param(None, Receipt(version="2"), Receipt(version="3"), None, id="a version after ours"),
        pytest.param(
            Receipt(version="1"), Receipt(), Receipt(version="2"), "metadata", id="another version than before"
        ),
        pytest.param(Receipt(version="1"), Receipt(), Receipt(version="1"), None, id="the version of before"),
        pytest.param(
            Receipt(updated_at=BEFORE),
            Receipt(server_date=WROTE),
            Receipt(updated_at=WROTE.replace(microsecond=0)),
            "metadata",
            id="whole seconds",
        ),
        pytest.param(
            Receipt(updated_at=BEFORE), Receipt(server_date=WROTE), Receipt(updated_at=BEFORE), None, id="not since"
        ),
        pytest.param(Receipt(updated_at=BEFORE), Receipt(), Receipt(updated_at=WROTE), "metadata", id="moved"),
        pytest.param(None, Receipt(), Receipt(updated_at=WROTE), "accepted", id="nothing to compare with"),
    ],
)
def test_levels(before: Receipt | None, receipt: Receipt, after: Receipt | None, level: str | None) -> None:
    assert level_of(before, receipt, after) == level
