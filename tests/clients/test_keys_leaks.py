"""The value of a key as a canary: during a whole rotation it is seen in the stores that it is for, and nowhere else.

What looks for it is shown to find it: a store of the tests leaks in every way.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import urlsplit

import pytest

from lamplighter import faults
from lamplighter.api.secret import Secret
from lamplighter.keys.errors import KeysError, SinkError
from lamplighter.keys.journal import Journal
from lamplighter.keys.naming import Naming
from lamplighter.keys.neon import NeonKeys
from lamplighter.keys.records import Scope
from lamplighter.keys.rotate import Rotation
from lamplighter.keys.sinks.base import Sink
from lamplighter.keys.sinks.registry import parse_sink
from support.keys.front import Spoil, echo, key_as_text, neon_front
from support.keys.leaky import FILES, LeakySink, installed_in
from support.keys.surroundings import Ran, Stores, Team, all_stores
from support.keys.watching import Call, Pieces, Processes, Trace, files_that_hold
from support.lamp import Lamp
from support.stores.leaks import logged, shown
from support.stores.server import Fault

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def stores() -> Iterator[Stores]:
    with all_stores() as found:
        yield found


@dataclass
class Watched:
    """A rotation that was watched: `old` and `new` are the values of its two keys."""

    team: Team
    ran: Ran
    processes: Processes
    trace: Trace | None
    old: bytes
    new: bytes

    def calls(self, secret: bytes) -> set[tuple[str, str]]:
        """The calls that hold a secret, each with the name of where it went."""
        assert self.trace is not None
        return {(call.name, self._place(call)) for call in self.trace.that_hold(secret)}

    def _place(self, call: Call) -> str:
        ports = {"neon": self.team.url, **self.team.stores.urls}
        names = {str(urlsplit(url).port): name for name, url in ports.items()}
        if to := re.search(r"->127\.0\.0\.1:(\d+)\]", call.target):
            return names.get(to[1], to[0])
        return call.target.removeprefix(f"{self.team.root}/")


def rotated(team: Team, place: Path, *words: str, **env: str) -> Watched:
    """A second key of the team's lineage, put where the first one is, with everybody watching."""
    team.keys("mint", "--name", team.name, *words, env=env)
    old = team.held("dotenv")
    # Other users cannot watch the system calls of a program that does not want to be watched.
    trace = Trace(place / "trace") if os.geteuid() == 0 else None
    processes = Processes()
    with processes.watched():
        command = trace.command if trace else []
        ran = team.keys("rotate", team.name, "--soak", "0", "--output", "json", under=command, env=env)
    new = team.held("dotenv")
    assert old is not None
    assert new is not None
    assert len(new) > 32
    renewed = new != old
    assert renewed
    return Watched(team, ran, processes, trace, old, new)


@pytest.fixture(scope="module")
def watched(lamp: Lamp, stores: Stores, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    place = tmp_path_factory.mktemp("watched")
    (place / "team").mkdir()
    team = Team(lamp, stores, place / "team")
    yield rotated(team, place, *team.to())
    team.clear()


@pytest.fixture(scope="module")
def leaking(lamp: Lamp, stores: Stores, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """The same with a store that leaks."""
    place = tmp_path_factory.mktemp("leaking")
    (place / "team").mkdir()
    team = Team(lamp, stores, place / "team")
    leaky = ("--to", f"leaky:{team.root / 'work' / 'kept'}")
    yield rotated(team, place, *team.to("dotenv"), *leaky, **installed_in(place / "installed"))
    team.clear()


# System calls


@pytest.mark.root
def test_only_the_stores_and_neon_are_sent_the_value(watched: Watched) -> None:
    """GitHub gets a sealed box, the keychain an encrypted message: neither holds it in plain."""
    allowed = {
        # `GET /auth` with the new key, and what else proves its reach.
        ("sendto", "neon"),
        ("sendto", "openbao"),
        ("sendto", "aws"),
        ("sendto", "cloudflare"),
        ("write", "work/..env.lamplighter-new"),
    }
    assert watched.calls(watched.new) == allowed


@pytest.mark.root
def test_the_old_value_and_the_minter_are_not_written_either(watched: Watched) -> None:
    """The old value is not needed at all; the minter goes to Neon alone."""
    assert watched.calls(watched.old) == set()
    assert watched.calls(watched.team.lamp.key.encode()) == {("sendto", "neon")}


@pytest.mark.root
def test_a_trace_shows_every_leak(leaking: Watched) -> None:
    found = leaking.calls(leaking.new)
    files = {("write", f"home/{name}") for name in FILES} | {("write", "tmp/unlinked.txt"), ("write", "work/kept")}
    assert found >= files
    assert {name for name, _ in found} >= {"execve", "sendto"}
    elsewhere = {target for name, target in found if name == "sendto"}
    assert elsewhere > {"neon"}
    assert any(name == "write" and target.startswith("pipe:") for name, target in found), found


# Processes


def test_no_process_shows_the_value(watched: Watched) -> None:
    assert watched.processes.that_hold(watched.new) == set()
    assert watched.processes.that_hold(watched.old) == set()
    assert watched.processes.rounds > 20
    seen = [each for each in watched.processes.command_lines if watched.team.name.encode() in each]
    assert seen, "the rotation itself was not seen"


def test_a_process_that_shows_it_is_seen(leaking: Watched) -> None:
    assert leaking.processes.that_hold(leaking.new) == {"cmdline", "environ"}


# Files


def test_no_file_holds_the_value_but_the_dotenv_file(watched: Watched) -> None:
    """Of home, state, configuration, cache, temporary and working directories, the keychain and the platform's log."""
    team = watched.team
    roots = (team.root, team.stores.ring, team.lamp.log)
    assert files_that_hold(watched.new, *roots) == {team.dotenv}
    assert files_that_hold(watched.old, *roots) == set()


def test_a_file_that_holds_any_form_of_it_is_found(leaking: Watched) -> None:
    root = leaking.team.root
    expected = {root / "home" / name for name in FILES} | {leaking.team.dotenv, root / "work" / "kept"}
    assert files_that_hold(leaking.new, root) == expected


@pytest.mark.root
def test_cores_and_debuggers_are_forbidden_before_the_value_is_there(watched: Watched) -> None:
    assert watched.trace is not None
    lines = [call.line for call in watched.trace.calls() if call.name in ("prctl", "prlimit64", "sendto")]
    forbidden = [at for at, line in enumerate(lines) if b"PR_SET_DUMPABLE, SUID_DUMP_DISABLE" in line]
    no_cores = [at for at, line in enumerate(lines) if b"RLIMIT_CORE, {rlim_cur=0," in line]
    (minted,) = [at for at, line in enumerate(lines) if b'"POST /api/v2/api_keys' in line]
    assert forbidden[0] < minted
    assert no_cores[0] < minted


# What the command says


def test_the_command_says_nothing_of_it(watched: Watched, leaking: Watched) -> None:
    said = (watched.ran.out + watched.ran.err).encode()
    assert said
    assert not Pieces(watched.new, watched.old, watched.team.lamp.key.encode()).are_in(said)
    assert Pieces(leaking.new).are_in((leaking.ran.out + leaking.ran.err).encode())


# Errors, logs and tracebacks


class Witness(NeonKeys):
    """Remembers the values of the keys that it mints."""

    def __init__(self, **how: Any) -> None:
        super().__init__(**how)
        self.values: list[bytes] = []

    def mint(self, scope: Scope, name: str) -> Any:
        minted = super().mint(scope, name)
        with minted.value.reveal() as view:
            self.values.append(bytes(view))
        return minted


class Boom(Exception):
    """What is raised at a point."""


@contextmanager
def raising_at(number: int) -> Iterator[None]:
    """The so manieth point that is reached raises, as anything may anywhere: a trace function of Python's does it."""
    code, count = faults.point.__code__, itertools.count(1)

    def trace(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and frame.f_code is code and next(count) == number:
            raise Boom(frame.f_locals["name"])

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


@pytest.fixture
def team(lamp: Lamp, stores: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Team]:
    """For rotations in this process."""
    found = Team(lamp, stores, tmp_path)
    for name, text in found.env.items():
        monkeypatch.setenv(name, text)
    yield found
    found.clear()


def in_process(team: Team, server: NeonKeys, *sinks: Sink | str, **how: Any) -> tuple[Rotation, Journal]:
    journal = Journal(team.state_dir)
    made = [parse_sink(team.sinks[each]) if isinstance(each, str) else each for each in sinks]
    scope = Scope(kind="personal")
    return Rotation(server, journal, Naming(team.name), scope=scope, sinks=made, soak=0, **how), journal


def told(action: Callable[[], object], error: type[BaseException]) -> str:
    """All that is ever shown of a failure: its text and chain, tracebacks with locals, logs at DEBUG."""
    with logged() as log, pytest.raises(error) as caught:
        action()
    return shown(caught.value) + log.getvalue()


def test_whatever_raises_wherever_nothing_is_shown(team: Team, lamp: Lamp, capfd: pytest.CaptureFixture[str]) -> None:
    """Each point of a rotation in turn; each time it can be gone on with, and no key is left behind."""
    points = 0
    with Witness(base_url=lamp.url, api_key=Secret(lamp.key), settle=0.1) as server:
        for number in itertools.count(1):
            rotation, _ = in_process(team, server, "dotenv", "openbao", "github")
            try:
                with raising_at(number), logged() as log:
                    rotation.run()
            except Boom as error:
                text = shown(error) + log.getvalue()
            else:
                break
            points += 1
            assert not Pieces(*server.values, lamp.key.encode()).are_in(text.encode())
            with logged() as log:
                recovering, journal = in_process(team, server, "dotenv", "openbao", "github")
                recovering.recover()
            assert not Pieces(*server.values, lamp.key.encode()).are_in(log.getvalue().encode())
            with journal:
                current = journal.state.lineage(team.name).current
            assert set(team.live()) == ({current} if current else set())
    said = "".join(capfd.readouterr())
    assert points > 20
    assert not Pieces(*server.values, lamp.key.encode()).are_in(said.encode())
    assert not files_that_hold(lamp.key.encode(), team.root) - {team.minter}


def test_a_store_that_logs_it_or_has_it_in_a_local_is_found_out(team: Team, lamp: Lamp) -> None:
    with Witness(base_url=lamp.url, api_key=Secret(lamp.key), settle=0.1) as server:
        rotation, _ = in_process(team, server, LeakySink(team.root / "kept", fails=True))
        with logged() as log, pytest.raises(SinkError) as caught:
            rotation.run()
    wanted = Pieces(*server.values)
    assert wanted.are_in(log.getvalue().encode())
    assert wanted.are_in(shown(caught.value).encode())
    assert not wanted.are_in(str(caught.value).encode())


# What Neon may answer to whoever makes a key


#: Surely no key was made: the answer is spoilt, and the platform does not hear of it.
REFUSED = (301, 400, 401, 403, 404, 409, 422, 423, 429, 503)
#: A key may have been made, and was.
UNSURE = (408, 500, 502, 504)
BROKEN: dict[str, Spoil] = {
    "html": lambda value: Fault(200, f"<html><title>{value}</title>".encode()),
    "empty": lambda _: Fault(200, b""),
    "cut-short": lambda value: Fault(200, key_as_text(value)[:-30], declared=30),
    "cut-in-the-key": lambda value: Fault(200, key_as_text(value)[:40]),
    "another-field": lambda value: Fault(200, json.dumps({"id": 1, "api_key": value, "secret": value}).encode()),
    "nested": lambda value: Fault(200, json.dumps({"id": 1, "key": {"value": value}}).encode()),
    "listed": lambda value: Fault(200, json.dumps([{"id": 1, "key": value}]).encode()),
    "id-is-the-key": lambda value: Fault(200, json.dumps({"id": value, "key": value}).encode()),
    "in-the-headers": lambda value: Fault(
        500, echo(value), {"X-Neon-Ret-Request-Id": value, "Location": f"/{value}", "Retry-After": value}
    ),
    "not-utf-8": lambda value: Fault(200, b"\xff\xfe" + value.encode()),
    "slow": lambda value: Fault(200, key_as_text(value)[:-1], declared=1, hang=True),
    "reset": lambda _: Fault(reset=True),
}


def spoilt(team: Team, lamp: Lamp, spoil: Spoil, *, makes: bool) -> str:
    """What is shown of a rotation against such a server; afterwards nothing is left of it."""
    with neon_front(lamp) as front:
        front.spoil, front.makes = spoil, makes
        with NeonKeys(base_url=front.url, api_key=Secret(lamp.key), timeout=1.0, settle=0.1) as server:
            rotation, _ = in_process(team, server, "dotenv")
            text = told(rotation.run, KeysError)
            front.spoil = None
            recovering, journal = in_process(team, server, "dotenv")
            recovering.recover()
    assert front.canaries
    assert not Pieces(*front.canaries, lamp.key.encode()).are_in(text.encode())
    assert not any(files_that_hold(each, team.root) for each in front.canaries)
    with journal:
        assert not journal.state.lineage(team.name).unfinished
    assert team.live() == {}
    assert not team.dotenv.exists()
    return text


@pytest.mark.parametrize("status", [*REFUSED, *UNSURE])
def test_a_status_whose_body_is_full_of_the_value(team: Team, lamp: Lamp, status: int) -> None:
    """A refusal is said with its status; a key that was made all the same is revoked."""
    text = spoilt(team, lamp, lambda value: Fault(status, echo(value), {"Retry-After": "0"}), makes=status in UNSURE)
    if status in REFUSED:
        assert f"HTTP {status}" in text


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_body_that_holds_the_value(team: Team, lamp: Lamp, how: str) -> None:
    """There may be a key, and there is: it is found by its name and revoked."""
    spoilt(team, lamp, BROKEN[how], makes=True)


@pytest.mark.parametrize("how", ["html", "in-the-headers", "cut-short"])
def test_the_command_shows_nothing_of_a_broken_answer(lamp: Lamp, stores: Stores, tmp_path: Path, how: str) -> None:
    with neon_front(lamp) as front:
        front.spoil = BROKEN[how]
        team = Team(lamp, stores, tmp_path, url=front.url)
        for output in ("table", "json"):
            ran = team.keys("mint", "--name", team.name, *team.to("dotenv"), "-o", output, status=1)
            said = (ran.out + ran.err).encode()
            assert said
            assert not Pieces(*front.canaries).are_in(said)
        front.spoil = None
        team.keys("recover")
    assert team.live() == {}
    assert not any(files_that_hold(each, team.root) for each in front.canaries)


def test_a_value_that_is_elsewhere_in_a_good_answer_stays_there(lamp: Lamp, stores: Stores, tmp_path: Path) -> None:
    """The decoy: the rotation is a good one, and shows none of the places in which the value came along."""
    with neon_front(lamp) as front:
        team = Team(lamp, stores, tmp_path, url=front.url)

        def spoil(value: str) -> Fault:
            (key_id,) = team.live()
            return Fault(200, key_as_text(value, id=key_id, name=value, hint=[value], created_at=value))

        front.spoil = spoil
        ran = team.keys("mint", "--name", team.name, *team.to("dotenv"), "-o", "json")
        assert not Pieces(*front.canaries).are_in((ran.out + ran.err).encode())
        same = [team.held("dotenv")] == front.canaries
        assert same
        assert files_that_hold(front.canaries[0], team.root) == {team.dotenv}
        team.clear()
