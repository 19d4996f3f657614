"""schemathesis, unmodified, against a platform: no 5xx, and no answer that the OpenAPI document does not tell of."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from lamplighter.api.operations import OPERATIONS
from support.lamp import Lamp, temporary_lamp

SECONDS = 600
SERVED = {operation.id for operation in OPERATIONS.values() if operation.served}

#: Not judged: `positive_data_acceptance` takes every refusal of what the schema cannot tell (a name that is taken, a
#: project that is busy) for a fault, and `ensure_resource_availability` every 404 of a path that names two resources.
CONFIGURATION = """
hooks = {hooks!r}
seed = 20261121
continue-on-failure = true
request-timeout = 60

[headers]
Authorization = {authorization!r}

[generation]
mode = "all"
max-examples = {examples}
deterministic = true
no-shrink = true
database = "none"

[checks]
positive_data_acceptance.enabled = false
ensure_resource_availability.enabled = false
"""
#: Random requests of each operation; boundary values come on top, and as many chains of requests.
EXAMPLES = 3


@pytest.fixture(scope="module")
def platform() -> Iterator[Lamp]:
    """A platform that nobody else uses: schemathesis deletes what it finds."""
    with temporary_lamp() as lamp:
        yield lamp


def run_schemathesis(lamp: Lamp, directory: Path, phases: str) -> tuple[subprocess.CompletedProcess[str], Path]:
    (directory / "schemathesis.toml").write_text(
        CONFIGURATION.format(
            hooks=str(Path(__file__).with_name("schemathesis_hooks.py")),
            authorization=f"Bearer {lamp.key}",
            examples=EXAMPLES,
        )
    )
    record = directory / "record"
    env = {
        "LAMP_URL": lamp.url,
        "LAMP_KEY": lamp.key,
        "LAMP_KEY_ID": str(lamp.call("GET", "/api_keys")[-1]["id"]),
        "LAMP_RECORD": str(record),
        "NO_COLOR": "1",
        "PYTHONPATH": str(Path(__file__).parents[1]),
    }
    program = str(Path(sys.executable).with_name("st"))
    chosen = ["--phases", phases, "--include-by", "/x-lamplighter-served == true"]
    done = subprocess.run(
        [program, "run", f"{lamp.url}/openapi.json", *chosen],
        cwd=directory,
        env={**os.environ, **env},
        stdin=subprocess.DEVNULL,
        check=False,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    return done, record


@pytest.mark.timeout(SECONDS + 60)
def test_every_answer_is_in_the_document(platform: Lamp, tmp_path: Path):
    """Boundary values of every field, random ones, and chains of requests that use each other's answers."""
    done, record = run_schemathesis(platform, tmp_path, "coverage,fuzzing,stateful")
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2_000:]
    assert "request.failed" not in platform.log.read_text()
    statuses: dict[str, Counter[int]] = defaultdict(Counter)
    for line in record.read_text().splitlines():
        operation, status = line.split()
        statuses[operation][int(status)] += 1
    assert set(statuses) == SERVED
    # Checks of refusals alone would say little: every operation has also been done.
    assert {operation for operation in SERVED if not statuses[operation].keys() & {200, 201, 204}} == set(), statuses
    assert not {status for seen in statuses.values() for status in seen if status >= 500}
    assert platform.request("GET", "/users/me").status_code == 200


def test_the_document_is_the_one_that_is_served(platform: Lamp):
    """What schemathesis was told to try is what the table calls served."""
    document = httpx2.get(f"{platform.url}/openapi.json").json()
    described = [operation for path in document["paths"].values() for operation in path.values()]
    assert {one["operationId"] for one in described if one["x-lamplighter-served"]} == SERVED
    assert {one["operationId"] for one in described} == set(OPERATIONS)
