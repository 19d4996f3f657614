"""What is meant when it is not said, and what is asked before something goes. Nothing is called."""

from __future__ import annotations

import io
import json
from functools import partial
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from lamplighter.cli.dry_run import described, text_of
from lamplighter.cli.errors import Failure
from lamplighter.cli.planned import Planned, in_turn
from lamplighter.cli.session import Options, Session, api_command, find_context_file
from lamplighter.cli.spinner import Spinner
from support.lamp import wait_for


def linked(place: Path, **content: Any) -> Path:
    path = place / ".neon"
    path.write_text(json.dumps(content))
    return path


def test_a_context_file_is_looked_for_upwards(tmp_path: Path) -> None:
    """As the neon CLI does: not in the home directory, nor in the root."""
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    assert find_context_file(deep, home=tmp_path) is None
    in_home = linked(tmp_path)
    assert find_context_file(deep, home=tmp_path) is None
    assert find_context_file(deep, home=Path("/nobody")) == in_home
    nearer = linked(tmp_path / "a")
    assert find_context_file(deep, home=tmp_path) == nearer


def test_a_directory_of_that_name_is_none(tmp_path: Path) -> None:
    (tmp_path / ".neon").mkdir()
    assert find_context_file(tmp_path, home=Path("/nobody")) is None


def test_the_context_file_names_project_and_organization(tmp_path: Path) -> None:
    session = Session(Options(context_file=linked(tmp_path, projectId="p-1", orgId="org-1", branch="dev")))
    assert session.project_id() == "p-1"
    assert session.org_id() == "org-1"
    assert "neon" not in vars(session)


def test_an_option_goes_before_the_context_file(tmp_path: Path) -> None:
    session = Session(Options(project_id="p-2", org_id="o", context_file=linked(tmp_path, projectId="p-1", orgId="q")))
    assert (session.project_id(), session.org_id()) == ("p-2", "o")


@pytest.mark.parametrize("content", ["", "{", "[]", "\xff", '{"projectId": 5}', '{"branch": ["dev"]}'])
def test_a_broken_context_file_is_no_other_project(tmp_path: Path, content: str) -> None:
    """It is not passed over: a command must not go to another project than the one that was meant."""
    path = tmp_path / ".neon"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(Failure, match=str(path)):
        Session(Options(context_file=path)).project_id()


def test_nobody_to_ask_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    with pytest.raises(Failure) as caught:
        Session(Options()).confirm(["branch dev", "branch main"])
    assert caught.value.exit_code == 2
    assert "branch dev; branch main" in caught.value.message
    assert "--yes" in caught.value.hint


def test_yes_asks_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    Session(Options(yes=True)).confirm(["branch dev"])
    assert capsys.readouterr().err == ""


def test_notes_reach_no_terminal_raw(capsys: pytest.CaptureFixture[str]) -> None:
    Session(Options()).note("a\x1b[2J\nb")
    assert capsys.readouterr() == ("", "a\\x1b[2J\nb\n")


def test_the_decorator_adds_what_is_asked_for() -> None:
    seen: list[Session] = []

    @click.command()
    @click.option("--own")
    @api_command(branch=True, destructive=True, waits=True)
    def command(session: Session, own: str) -> None:
        seen.append(session)
        assert own == "x"

    words = ["--own", "x", "--project-id", "p", "--branch", "b", "--org-id", "o", "--yes", "--dry-run", "-o", "csv"]
    result = CliRunner().invoke(command, [*words, "--timeout", "5"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    options = seen[0].options
    assert (options.project_id, options.branch, options.org_id, options.output) == ("p", "b", "o", "csv")
    assert seen[0].yes
    assert seen[0].dry_run
    assert seen[0].wait == 5
    assert next(param.name for param in command.params) == "own"


def test_no_wait_is_false() -> None:
    seen: list[Session] = []

    @click.command()
    @api_command(waits=True)
    def command(session: Session) -> None:
        seen.append(session)

    CliRunner().invoke(command, ["--no-wait"], catch_exceptions=False)
    CliRunner().invoke(command, [], catch_exceptions=False)
    assert [session.wait for session in seen] == [False, 300]


def test_a_dry_run_ends_at_the_first_change() -> None:
    @click.command()
    @api_command(changes=True)
    def command(session: Session) -> None:
        assert session.dry_run
        raise Planned("POST", "http://host/api/v2/x", b'{"name": "a", "password": "sekret"}', "application/json")

    result = CliRunner().invoke(command, ["--dry-run", "-o", "json"])
    assert result.exit_code == 0
    assert json.loads(result.stdout) == {
        "requests": [{"method": "POST", "url": "http://host/api/v2/x", "body": {"name": "a", "password": "***"}}]
    }
    assert "Nothing was changed" in result.stderr


@pytest.mark.parametrize("output", ["json", "table"])
def test_a_dry_run_of_several_steps_shows_them_all(output: str) -> None:
    """In their order: whoever deletes a branch with its children is to see each of them."""

    def step(number: int) -> None:
        raise Planned("DELETE", f"http://host/api/v2/{number}", b"", "")

    @click.command()
    @api_command(changes=True)
    def command(session: Session) -> None:
        in_turn(partial(step, number) for number in (1, 2, 3))

    result = CliRunner().invoke(command, ["--dry-run", "-o", output])
    assert result.exit_code == 0
    urls = [f"http://host/api/v2/{number}" for number in (1, 2, 3)]
    if output == "json":
        assert [each["url"] for each in json.loads(result.stdout)["requests"]] == urls
    else:
        assert result.stdout.splitlines() == [f"DELETE {url}" for url in urls]
    assert "These requests would be sent" in result.stderr


def test_steps_give_what_they_give() -> None:
    assert in_turn([lambda: 1, lambda: 2]) == [1, 2]


def test_a_planned_request_without_json_says_its_size() -> None:
    assert (
        described(Planned("POST", "u", b"\x00" * 5, "multipart/form-data"))["body"] == "5 bytes of multipart/form-data"
    )
    assert text_of(Planned("DELETE", "http://h/x", b"", "")) == "DELETE http://h/x\n"


@pytest.mark.parametrize("option", ["--project-id", "--org-id", "--branch", "--api-host", "--context"])
def test_an_empty_option_is_no_default(option: str) -> None:
    """`--branch "$UNSET"` must not go to the branch that is meant when none is named."""

    @click.command()
    @api_command(branch=True)
    def command(session: Session) -> None:
        raise AssertionError(session)

    result = CliRunner().invoke(command, [option, ""])
    assert result.exit_code == 2
    assert f"{option} is empty" in result.stderr


def test_an_empty_name_is_not_the_default_branch(tmp_path: Path) -> None:
    session = Session(Options(branch="dev", context_file=linked(tmp_path, projectId="p-1", branch="main")))
    with pytest.raises(Failure, match="a branch has a name") as caught:
        session.branch("")
    assert caught.value.exit_code == 2
    assert "neon" not in vars(session)


def test_two_servers_are_a_wrong_usage() -> None:
    with pytest.raises(click.UsageError):
        _ = Session(Options(api_host="http://x", context="y")).neon


def test_no_progress_where_there_is_no_terminal() -> None:
    stream = io.StringIO()
    with Spinner("Waiting", stream):
        pass
    assert stream.getvalue() == ""


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_one_line_that_goes_away() -> None:
    stream = Terminal()
    with Spinner("Waiting for 2 operations", stream):
        wait_for(lambda: "Waiting for 2 operations" in stream.getvalue(), what="the line")
    assert stream.getvalue().endswith("\r\x1b[K")
    assert "\n" not in stream.getvalue()
