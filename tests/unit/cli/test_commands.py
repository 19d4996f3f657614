"""The table of commands."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from lamplighter.cli.commands import COMMANDS, lamp
from lamplighter.cli.postgres import MAJORS
from lamplighter.compute import binaries


def commands(group: click.Group, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Paths of all commands, groups included."""
    context = click.Context(group)
    found = []
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        found.append((*path, name))
        if isinstance(command, click.Group):
            found += commands(command, (*path, name))
    return found


PATHS = commands(lamp)


def test_all_commands_are_there() -> None:
    assert {path[0] for path in PATHS} == set(COMMANDS)
    assert {("postgres", "list"), ("postgres", "install"), ("postgres", "remove")} <= set(PATHS)
    assert {("storage", "init"), ("storage", "status")} <= set(PATHS)


@pytest.mark.parametrize("path", PATHS, ids=" ".join)
def test_every_command_explains_itself(path: tuple[str, ...]) -> None:
    """With a sentence and every option."""
    result = CliRunner().invoke(lamp, [*path, "--help"])
    assert result.exit_code == 0, result.output
    assert "\\b" not in result.output
    assert len(result.output.splitlines()) > 4


@pytest.mark.parametrize("path", PATHS, ids=" ".join)
def test_every_option_is_described(path: tuple[str, ...]) -> None:
    group: click.Command = lamp
    for name in path:
        assert isinstance(group, click.Group)
        found = group.get_command(click.Context(group), name)
        assert found is not None
        group = found
    for parameter in group.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name


def test_the_list_says_what_the_command_says() -> None:
    """`lamp --help` does not import commands, so what it says of them is written twice."""
    for name, (_, line) in COMMANDS.items():
        command = lamp.get_command(click.Context(lamp), name)
        assert command is not None
        assert command.help is not None
        assert command.help.split("\n\n")[0].strip() == line


@pytest.mark.parametrize(
    ("typed", "meant"), [("ub", "up"), ("stauts", "status"), ("doctr", "doctor"), ("postgresql", "postgres")]
)
def test_a_mistyped_command_suggests_a_near_one(typed: str, meant: str) -> None:
    result = CliRunner().invoke(lamp, [typed])
    assert result.exit_code == 2
    assert f"Did you mean '{meant}'?" in result.output


def test_a_mistyped_subcommand_too() -> None:
    result = CliRunner().invoke(lamp, ["postgres", "instal", "17"])
    assert result.exit_code == 2
    assert "Did you mean 'install'?" in result.output


def test_an_unlike_command_suggests_nothing() -> None:
    result = CliRunner().invoke(lamp, ["xyzzy"])
    assert result.exit_code == 2
    assert "No such command 'xyzzy'." in result.output
    assert "Did you mean" not in result.output


def test_majors_are_those_of_the_platform() -> None:
    assert MAJORS == binaries.MAJORS


@pytest.mark.parametrize("arguments", [["remove", "13"], ["install", "19"], ["install"], ["install", "x"]])
def test_other_majors_are_a_wrong_usage(arguments: list[str]) -> None:
    assert CliRunner().invoke(lamp, ["postgres", *arguments]).exit_code == 2


@pytest.mark.parametrize("size", ["50", "much", "-5G", "0G"])
def test_a_wrong_size_is_a_wrong_usage(size: str) -> None:
    result = CliRunner().invoke(lamp, ["storage", "init", "--size", size])
    assert result.exit_code == 2
    assert "size" in result.output
