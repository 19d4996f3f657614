"""Rotations on a real platform, killed on the way: a dotenv file, and a store that cannot be read."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from faults.keys.file_sink import FileSink
from faults.keys.scenes import KILLED, Worker, worker
from lamplighter.api.secret import Secret
from lamplighter.keys.errors import MinterUnfit, WrongScope
from lamplighter.keys.journal import Journal
from lamplighter.keys.naming import Naming
from lamplighter.keys.neon import NeonKeys
from lamplighter.keys.records import Scope
from lamplighter.keys.rotate import Outcome, Rotation
from lamplighter.keys.sinks.dotenv import DotenvSink
from support.lamp import Lamp

pytestmark = pytest.mark.timeout(300)

#: Every so many points one kill: the observer has them all.
EVERY = 4


@pytest.fixture(scope="module")
def project(lamp: Lamp) -> dict[str, Any]:
    made: dict[str, Any] = lamp.project(name="keys")["project"]
    return made


@pytest.fixture
def scope(project: dict[str, Any]) -> Scope:
    return Scope(kind="project", org_id=project["org_id"], project_id=project["id"])


def live(lamp: Lamp, scope: Scope) -> dict[int, str]:
    path = f"/organizations/{scope.org_id}/api_keys" if scope.org_id else "/api_keys"
    return {each["id"]: each["name"] for each in lamp.call("GET", path)}


def status_of(lamp: Lamp, key: str, path: str = "/auth") -> int:
    return lamp.request("GET", path, key=key).status_code


def rotate(lamp: Lamp, state: Path, lineage: str, scope: Scope, *sinks: Any, **options: Any) -> Outcome:
    server = NeonKeys(base_url=lamp.url, api_key=Secret(lamp.key), settle=0.2)
    with server, Journal(state) as journal:
        return Rotation(server, journal, Naming(lineage), scope=scope, sinks=sinks, soak=0, **options).run()


def test_the_old_key_is_dead_and_the_new_one_works_from_every_sink(lamp: Lamp, scope: Scope, tmp_path: Path) -> None:
    """Twice: the first key of the lineage, then its successor; the journal tells it without a value."""
    env = DotenvSink(tmp_path / ".env", "NEON_API_KEY")
    sealed = FileSink(tmp_path / "sealed", readable=False)

    def values() -> list[str]:
        return [env.path.read_text().strip().removeprefix("NEON_API_KEY="), sealed.path.read_text()]

    first = rotate(lamp, tmp_path / "state", "twice", scope, sealed, env)
    assert (first.state, first.revoked) == ("done", ())
    old, _ = values()
    assert status_of(lamp, old) == 200
    second = rotate(lamp, tmp_path / "state", "twice", scope, sealed, env)
    assert second.revoked == (first.key_id,)
    assert second.levels == {env.describe(): "value", sealed.describe(): "metadata"}
    assert [status_of(lamp, each, f"/projects/{scope.project_id}") for each in values()] == [200, 200]
    assert status_of(lamp, old) == 401
    journal = (tmp_path / "state" / "journal.jsonl").read_text()
    leaked = [each for each in (old, *values(), lamp.key) if each in journal]
    assert leaked == []
    assert second.key_id in live(lamp, scope)
    assert first.key_id not in live(lamp, scope)


@pytest.mark.parametrize("kind", ["personal", "organization"])
def test_keys_of_other_scopes(lamp: Lamp, project: dict[str, Any], tmp_path: Path, kind: Any) -> None:
    scope = Scope(kind=kind, org_id=project["org_id"] if kind == "organization" else None)
    sink = DotenvSink(tmp_path / ".env", "NEON_API_KEY")
    for _ in range(2):
        assert rotate(lamp, tmp_path / "state", kind, scope, sink).state == "done"
    assert [name for name in live(lamp, scope).values() if name.startswith(f"lamp.{kind}.")] != []


def test_a_minter_that_may_not_mint_changes_nothing(lamp: Lamp, scope: Scope, tmp_path: Path) -> None:
    """An organization's key cannot make keys."""
    sink = DotenvSink(tmp_path / ".env", "NEON_API_KEY")
    rotate(lamp, tmp_path / "org", "weak", Scope(kind="organization", org_id=scope.org_id), sink)
    weak = sink.path.read_text().strip().removeprefix("NEON_API_KEY=")
    before = live(lamp, scope)
    server = NeonKeys(base_url=lamp.url, api_key=Secret(weak))
    with server, Journal(tmp_path / "state") as journal, pytest.raises(MinterUnfit, match="personal"):
        Rotation(server, journal, Naming("strong"), scope=scope, sinks=[sink], soak=0).run()
    assert live(lamp, scope) == before
    assert status_of(lamp, weak) == 200


class Careless(NeonKeys):
    """A server that forgets what the key was to be limited to."""

    def mint(self, scope: Scope, name: str) -> Any:
        return super().mint(Scope(kind="organization", org_id=scope.org_id), name)


def test_a_key_that_reaches_too_far_is_withdrawn(lamp: Lamp, scope: Scope, tmp_path: Path) -> None:
    sink = DotenvSink(tmp_path / ".env", "NEON_API_KEY")
    before = live(lamp, scope)
    server = Careless(base_url=lamp.url, api_key=Secret(lamp.key))
    with server, Journal(tmp_path / "state") as journal, pytest.raises(WrongScope):
        Rotation(server, journal, Naming("far"), scope=scope, sinks=[sink], soak=0).run()
    assert live(lamp, scope) == before
    assert not sink.path.exists()


def test_killed_on_the_way(lamp: Lamp, scope: Scope, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Recovered each time: the sinks hold one live key, and there is no other of the lineage."""
    count = 0
    with worker() as one:
        assert _order(one, lamp, scope, tmp_path / "warm", "run") == 0
        _withdraw(lamp, scope)
        for point in itertools.count(1, EVERY):
            place = tmp_path / str(point)
            killed = _order(one, lamp, scope, place, "run", fault=f"keys.*:{point}") == KILLED
            assert _order(one, lamp, scope, place, "recover") == 0, (place / "log").read_text()
            _assert_settled(lamp, scope, place)
            if not killed:
                break
            count += 1
            _withdraw(lamp, scope)
    with capsys.disabled():
        sys.stdout.write(f"\n{count} rotations killed on lamp\n")
    assert count >= 6


def _sinks(place: Path) -> Iterator[str]:
    yield FileSink(place / "plain", readable=True).describe()
    yield FileSink(place / "sealed", readable=False).describe()


def _order(one: Worker, lamp: Lamp, scope: Scope, place: Path, mode: str, *, fault: str = "") -> int:
    place.mkdir(exist_ok=True)
    reach = {"kind": scope.kind, "org_id": scope.org_id, "project_id": scope.project_id}
    return one.order(
        mode=mode,
        fault=fault,
        url=lamp.url,
        key=lamp.key,
        scope=reach,
        state=str(place / "state"),
        log=str(place / "log"),
        sinks=list(_sinks(place)),
        settle=0.2,
    )


def _assert_settled(lamp: Lamp, scope: Scope, place: Path) -> None:
    with Journal(place / "state") as journal:
        lineage = journal.state.lineage("ci")
        assert not lineage.unfinished
    ours = {key for key, name in live(lamp, scope).items() if name.startswith("lamp.ci.")}
    assert ours == ({lineage.current} if lineage.current else set())
    for address in _sinks(place):
        path = Path(address.partition(":")[2])
        assert path.exists() == bool(ours)
        if ours:
            assert status_of(lamp, path.read_text()) == 200


def _withdraw(lamp: Lamp, scope: Scope) -> None:
    """The next has a journal of its own: to that the keys of this one would be another machine's."""
    for key, name in live(lamp, scope).items():
        if name.startswith("lamp.ci."):
            lamp.call("DELETE", f"/organizations/{scope.org_id}/api_keys/{key}")
