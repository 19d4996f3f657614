"""The context that `lamp up` writes, by which the SDK and `lamp` find the platform."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import httpx2
import pytest

from lamplighter.client.config import Context, Contexts, Server
from lamplighter.client.contexts import ContextFile, find_server
from support.lamp import Lamp, temporary_lamp

from .conftest import Cli


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ContextFile:
    """The contexts of a user who has none yet, and who is in the environment of what is started."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return ContextFile()


@pytest.fixture
def lamps(file: ContextFile) -> Iterator[tuple[Lamp, Lamp]]:
    """Two platforms that are not started yet."""
    with ExitStack() as stack:
        yield tuple(stack.enter_context(temporary_lamp(start=False)) for _ in range(2))  # type: ignore[misc]


def start(lamp: Lamp, file: ContextFile, *, wait: bool = True) -> Lamp:
    """As that user. Without this each has a configuration of its own."""
    return lamp.start(env={"XDG_CONFIG_HOME": str(file.path.parents[1])}, wait=wait)


def account(server: Server) -> str:
    """Whose key it is, as the server says."""
    headers = {"authorization": f"Bearer {server.api_key.reveal()}"}
    reply = httpx2.get(f"{server.base_url}/auth", headers=headers)
    assert reply.status_code == 200, reply.text
    return str(reply.json()["account_id"])


def test_the_first_start_makes_a_context_that_works(lamps: tuple[Lamp, Lamp], file: ContextFile, cli: Cli) -> None:
    """And each later one keeps it true: with the same key, at the new port, with the key that --new-key makes."""
    lamp = start(lamps[0], file)
    server = find_server(environ={})
    assert (server.base_url, server.name, server.project_id) == (lamp.url, "local", lamp.shown["project_id"])
    assert server.api_key.reveal() == lamp.key
    assert lamp.shown["context"] == "local"
    assert file.path.stat().st_mode & 0o777 == 0o600
    whose = account(server)
    assert cli("context", "show").out.splitlines()[0].split() == ["Context", "local"]
    lamp.stop()

    start(lamp, file)
    again = find_server(environ={})
    assert lamp.shown["api_key"] is None
    assert (again.base_url, again.api_key, again.project_id) == (lamp.url, server.api_key, server.project_id)
    assert account(again) == whose
    lamp.stop()

    lamp.options = ("--new-key",)
    start(lamp, file)
    anew = find_server(environ={})
    assert anew.api_key.reveal() == lamp.shown["api_key"] != server.api_key.reveal()
    assert account(anew) == whose
    lamp.stop()
    assert list(file.read().named) == ["local"]


def test_two_platforms_side_by_side_do_not_take_each_others_name(lamps: tuple[Lamp, Lamp], file: ContextFile) -> None:
    """Started at the same time, even: each has a context of its own with its own key."""
    for lamp in lamps:
        start(lamp, file, wait=False)
    for lamp in lamps:
        lamp.wait_ready()
    assert sorted(lamp.shown["context"] for lamp in lamps) == ["local", "local-2"]
    for lamp in lamps:
        server = find_server(context=lamp.shown["context"], environ={})
        assert (server.base_url, server.api_key.reveal()) == (lamp.url, lamp.key)
        account(server)
    for lamp in lamps:
        lamp.stop()


def test_a_file_that_cannot_be_used_is_no_reason_not_to_start(lamps: tuple[Lamp, Lamp], file: ContextFile) -> None:
    """Nor not to show the key; it is left as it is, and said."""
    file.path.parent.mkdir(mode=0o700)
    file.path.write_text("{broken")
    file.path.chmod(0o600)
    lamp = start(lamps[0], file)
    assert lamp.key.startswith("napi_")
    assert lamp.shown["context"] is None
    assert f"Warning: this platform is no context of `lamp` and the SDK: {file.path} is broken" in lamp.log.read_text()
    assert file.path.read_text() == "{broken"
    lamp.stop()


def test_people_are_told_its_name(lamps: tuple[Lamp, Lamp], file: ContextFile) -> None:
    """And how to choose it, where something else is chosen."""
    lamp = start(lamps[0], file)
    lamp.stop()
    command = [arg for arg in lamp.command() if arg not in ("--output", "json")]
    mine = Context(base_url="https://mine.example/api/v2")
    file.change(lambda known: known.put("mine", mine))
    for chosen, said in ((None, "local (`lamp` and the SDK use it)"), ("mine", "local (`lamp use local` chooses it)")):
        file.change(partial(Contexts.use, name=chosen))
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert process.stdout is not None
        lines: list[str] = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("Ready."):
                process.terminate()
        assert process.wait(60) == 0
        process.stdout.close()
        assert f"Context      {said}\n" in lines
