"""What needs no platform, and must not load one."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = ("pydantic", "rich", "psycopg", "psutil", "starlette", "uvicorn", "asyncio", "lamplighter.platform")
HEAVY_PACKAGES = (*HEAVY, "lamplighter.control", "lamplighter.compute", "lamplighter.storage", "lamplighter.api")

_SCRIPT = """
import sys
sys.argv = ["lamp", *{arguments!r}]
try:
    from lamplighter.cli.main import main
    main()
finally:
    print("\\n".join(sorted(sys.modules)), file=sys.stderr)
"""


def modules_of(*arguments: str) -> tuple[str, set[str]]:
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT.format(arguments=list(arguments))], capture_output=True, text=True, check=True
    )
    return done.stdout, set(done.stderr.split())


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("--version",),
        *((name, "--help") for name in ("up", "down", "status", "doctor", "postgres", "storage", "openapi")),
        ("storage", "init", "--help"),
        ("postgres", "install", "--help"),
    ],
    ids=" ".join,
)
def test_help_loads_no_platform(arguments: tuple[str, ...]) -> None:
    """So that it is there at once, and without the extra."""
    out, modules = modules_of(*arguments)
    assert out
    assert not modules & set(HEAVY_PACKAGES)


def test_openapi_is_printed_without_a_platform() -> None:
    """Whole, as JSON, and nothing else on standard output."""
    out, modules = modules_of("openapi", "--server", "http://127.0.0.1:1")
    document = json.loads(out)
    assert document["openapi"].startswith("3.")
    assert document["servers"] == [{"url": "http://127.0.0.1:1/api/v2"}]
    assert len(document["paths"]) > 80
    assert not modules & {"psycopg", "starlette", "uvicorn", "lamplighter.platform", "lamplighter.compute"}


def test_a_broken_pipe_is_quiet() -> None:
    """`lamp openapi | head -1` prints one line, and no complaint."""
    command = f"{sys.executable} -m lamplighter openapi | head -n 1"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout == "{\n"
    assert done.stderr == ""
