"""Help of the commands that talk to a server loads neither a client nor a platform."""

from __future__ import annotations

import pytest

from .test_light import HEAVY_PACKAGES, modules_of

CLIENT = ("httpx2", "lamplighter.client", "yaml")


@pytest.mark.parametrize(
    "arguments",
    [
        *((group,) for group in ("projects", "branches", "endpoints", "databases", "roles", "snapshots")),
        ("branches", "create"),
        ("branches", "diff"),
        ("projects", "create"),
        ("connection-string",),
        ("psql",),
        ("watch",),
    ],
    ids=" ".join,
)
def test_help_is_light(arguments: tuple[str, ...]) -> None:
    out, modules = modules_of(*arguments, "--help")
    assert "Examples:" in out
    assert not modules & {*HEAVY_PACKAGES, *CLIENT}
