"""An audit of a real server after a real rotation: it sees what there is, and what went wrong since."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lamplighter import Neon
from lamplighter.api.secret import Secret
from lamplighter.keys.audit import Audit, audit
from lamplighter.keys.inventory import collect, parse_sinks
from lamplighter.keys.journal import Journal
from lamplighter.keys.neon import NeonKeys
from lamplighter.keys.policy import Policy, parse_policy
from lamplighter.keys.report import FORMATS, render
from lamplighter.keys.report_base import Meta
from lamplighter.keys.rotate import Rotation
from support.lamp import Lamp, temporary_lamp


@pytest.fixture(scope="module")
def lamp() -> Iterator[Lamp]:
    with temporary_lamp() as found:
        yield found


@pytest.fixture
def policy(lamp: Lamp, tmp_path: Path) -> Policy:
    org_id = lamp.call("GET", "/users/me/organizations")["organizations"][0]["id"]
    project_id = lamp.call("POST", "/projects", {"project": {"org_id": org_id}})["project"]["id"]
    minter_id = lamp.call("GET", "/api_keys")[0]["id"]
    lamp.settle(project_id)
    return parse_policy(
        f"""
        version = 1
        [neon]
        org_id = "{org_id}"
        minter_id = {minter_id}
        minter_from = ["127.0.0.0/8", "::1/128"]
        [lineage.ci]
        scope = "project"
        project_id = "{project_id}"
        soak = "0"
        sinks = ["env"]
        [sink.env]
        address = "dotenv:{tmp_path}/.env#NEON_API_KEY"
        [parity.NEON_API_KEY]
        required = ["env"]
        forbidden = ["dotenv:{tmp_path}/public.env#NEON_API_KEY"]
        """
    )


def look(lamp: Lamp, policy: Policy, state: Path, *, later: timedelta = timedelta()) -> Audit:
    with Neon(api_key=lamp.key, base_url=lamp.url) as neon:
        found = collect(neon, policy, journal=state, sinks=parse_sinks(policy))
    return audit(found, policy, now=datetime.now(UTC) + later)


def test_an_audit_after_a_rotation_and_after_what_may_happen_to_it(lamp: Lamp, policy: Policy, tmp_path: Path):
    """Clean after a rotation; then a key behind its back, another value in the store, and a store that is forbidden."""
    state, ci = tmp_path / "state", policy.lineages["ci"]
    server = NeonKeys(base_url=lamp.url, api_key=Secret(lamp.key))
    for _ in range(2):
        with Journal(state) as journal:
            sinks = [parse_sinks(policy)["env"]]
            Rotation(server, journal, ci.naming, scope=ci.scope, sinks=sinks, soak=0).run()
    server.close()
    clean = look(lamp, policy, state)
    assert (clean.findings, clean.gaps, clean.unfinished, clean.exit_code) == ((), (), (), 0)
    value = (tmp_path / ".env").read_text().strip().removeprefix("NEON_API_KEY=").strip("\"'")
    assert len(value) > 20
    for form in FORMATS:
        assert value not in render(clean, form, Meta(version="0", addresses=True))

    (tmp_path / "public.env").write_text("NEON_API_KEY=anything\n")
    (tmp_path / "public.env").chmod(0o600)
    (tmp_path / ".env").write_text("NEON_API_KEY=another\n")
    lamp.call("POST", f"/organizations/{ci.scope.org_id}/api_keys", {"key_name": f"lamp.ci.{'a' * 10}"})
    spoilt = look(lamp, policy, state)
    assert {each.rule for each in spoilt.findings} == {"K006", "K007", "K011", "P002", "P004"}
    assert spoilt.exit_code == 1

    old = look(lamp, policy, state, later=timedelta(days=91))
    assert "K001" in {each.rule for each in old.findings}


def test_a_key_that_may_not_look_is_no_clean_audit(lamp: Lamp, policy: Policy, tmp_path: Path):
    """A key of the project sees none of the lists."""
    scope = policy.lineages["ci"].scope
    body = {"key_name": "narrow", "project_id": scope.project_id}
    narrow = lamp.call("POST", f"/organizations/{scope.org_id}/api_keys", body)["key"]
    with Neon(api_key=narrow, base_url=lamp.url) as neon:
        found = collect(neon, policy, journal=tmp_path / "state", sinks=parse_sinks(policy))
    assert {each.source for each in found.gaps} >= {"personal keys", "organization keys", "members"}
    assert audit(found, policy, now=datetime.now(UTC)).exit_code == 3
