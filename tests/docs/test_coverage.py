"""What there is is in the documentation, and what the documentation names is there."""

from __future__ import annotations

import re
import shlex
from importlib import import_module
from pathlib import Path

import click
import pytest
from neon_api import NeonAPI

import lamplighter
from lamplighter import testing
from lamplighter.api.models.operations import Operation
from lamplighter.cli import commands
from lamplighter.cli import errors as statuses
from lamplighter.cli.refusals import failure_of_call
from lamplighter.client import errors
from lamplighter.client.names import GROUPS
from lamplighter.testing import errors as script_errors
from lamplighter.testing import plugin

from .operations_page import page as operations_page
from .snippets import DOCS, ROOT, pages

TEXTS = {page.name: page.read_text() for page in pages()}
ALL = "\n".join(TEXTS.values())
CODE = set(re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", ALL, flags=re.DOTALL | re.MULTILINE)))
NAMES = {name for code in CODE for name in re.findall(r"\w+", code)}


def classes_below(base: type) -> list[type]:
    return [base, *(deeper for one in base.__subclasses__() for deeper in classes_below(one))]


def rows_of(page: str, heading: str) -> list[list[str]]:
    """The cells of the table below a heading."""
    part = f"\n{TEXTS[page]}".partition(f"\n{heading}\n")[2].partition("\n#")[0]
    lines = [line for line in part.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


class TestWhatThereIs:
    @pytest.mark.parametrize("name", [name for name in lamplighter.__all__ if not name.startswith("__")])
    def test_public_name(self, name: str) -> None:
        assert name in NAMES

    @pytest.mark.parametrize("name", testing.__all__)
    def test_public_name_for_tests(self, name: str) -> None:
        assert name in NAMES or re.search(rf"\b{name}\b", TEXTS["testing.md"])

    @pytest.mark.parametrize(
        "kind",
        [
            *(kind for kind in classes_below(errors.NeonError) if kind.__module__ == errors.__name__),
            *(kind for kind in classes_below(script_errors.ScriptError)),
        ],
        ids=lambda kind: kind.__name__,
    )
    def test_error(self, kind: type) -> None:
        assert kind.__name__ in NAMES

    @pytest.mark.parametrize("group", GROUPS)
    def test_group_of_methods(self, group: str) -> None:
        assert f"neon.{group}" in TEXTS["operations.md"]

    @pytest.mark.parametrize("name", commands.COMMANDS)
    def test_command_and_those_below_it(self, name: str) -> None:
        row = next(line for line in TEXTS["cli.md"].splitlines() if line.startswith("|") and f"`lamp {name}`" in line)
        for words in below(commands.lamp.get_command(click.Context(commands.lamp), name)):
            assert f"`{words}`" in row

    @pytest.mark.parametrize("option", plugin._OPTIONS, ids=lambda option: option.name)
    def test_option_of_the_plugin(self, option: plugin._Option) -> None:
        assert f"--neon-{option.name}" in CODE

    def test_fixtures_of_the_plugin(self) -> None:
        fixtures = {name for name, value in vars(plugin).items() if type(value).__name__ == "FixtureFunctionDefinition"}
        public = {name for name in fixtures if not name.startswith("_")}
        assert len(public) >= 8
        assert public <= NAMES

    def test_operations(self) -> None:
        """To write the page anew: `python -m docs.operations_page` in the folder `tests`."""
        assert TEXTS["operations.md"] == operations_page()


def below(command: click.Command | None, path: str = "") -> list[str]:
    """The commands below a group: `list`, `permissions grant`."""
    assert command is not None
    if not isinstance(command, click.Group):
        return [path] if path else []
    context = click.Context(command)
    names = command.list_commands(context)
    return [each for name in names for each in below(command.get_command(context, name), f"{path} {name}".strip())]


class TestErrors:
    def test_the_tree_is_drawn_as_it_is(self) -> None:
        drawn = [
            re.match(r"([│├└ ]*)`(\w+)`", row[0]) for row in rows_of("errors-and-retries.md", "# Errors and retries")
        ]
        found: list[tuple[int, str]] = [(len(one[1]) // 2, one[2]) for one in drawn if one]
        parents: dict[int, type] = {}
        for depth, name in found:
            kind: type = getattr(errors, name)
            parents[depth] = kind
            if depth:
                assert kind.__bases__ == (parents[depth - 1],), name
        assert {name for _, name in found} == {
            kind.__name__ for kind in classes_below(errors.NeonError) if kind.__module__ == errors.__name__
        }

    def test_statuses_of_http(self) -> None:
        rows = rows_of("errors-and-retries.md", "# Errors and retries")
        told = {
            int(number): re.findall(r"\w+", row[0])[0] for row in rows for number in re.findall(r"\b[45]\d\d\b", row[1])
        }
        assert told == {status: kind.__name__ for status, kind in errors.BY_STATUS.items()}

    def test_exit_statuses(self) -> None:
        rows = rows_of("errors-and-retries.md", "## Exit statuses of `lamp`")
        known = {value for name, value in vars(statuses).items() if name.isupper() and isinstance(value, int)}
        assert {int(row[0]) for row in rows} == {0, *known}
        told = {name: int(row[0]) for row in rows for name in re.findall(r"`(\w+)`", row[2])}
        ended = Operation.model_validate(testing.example("getProjectOperation")["operation"])
        for kind in classes_below(errors.NeonError):
            if kind is not errors.NeonError and kind.__module__ == errors.__name__:
                error = kind("", operation=ended) if kind is errors.OperationFailed else kind("")
                assert told[kind.__name__] == failure_of_call(error).exit_code, kind.__name__


METHODS = re.compile(r"\bneon\.(?:with_raw_response\.)?([a-z_]+)(?:\.([a-z_]+))?")
#: What the client has besides groups; and `neon.tech`.
FURTHER = {"server", "with_options", "connection_string", "connect", "request", "close", "tech"}


class TestWhatIsNamed:
    @pytest.mark.parametrize("page", TEXTS)
    def test_methods_are_there(self, page: str) -> None:
        for group, method in METHODS.findall(TEXTS[page]):
            if group in FURTHER:
                continue
            assert group in GROUPS, f"neon.{group}"
            module = import_module(f"lamplighter.client._sync.resources.{group}")
            kind = next(value for name, value in vars(module).items() if name.lower() == group.replace("_", ""))
            assert not method or method == "with_raw_response" or hasattr(kind, method), f"neon.{group}.{method}"

    @pytest.mark.parametrize("page", TEXTS)
    def test_commands_and_options_are_there(self, page: str) -> None:
        for text in re.findall(r"`(lamp [a-z][^`]*)`|^\$ (lamp [^|<>&;\n\\]*)", TEXTS[page], flags=re.MULTILINE):
            words = shlex.split((text[0] or text[1]).replace("...", ""))
            command: click.Command = commands.lamp
            rest = words[1:]
            while rest and isinstance(command, click.Group):
                deeper = command.get_command(click.Context(command), rest[0])
                if deeper is None:
                    break
                command, rest = deeper, rest[1:]
            placeholder = not rest or rest[0].startswith("-") or rest[0] == "COMMAND"
            assert command is not commands.lamp or placeholder, words
            if "--" in rest:
                rest = rest[: rest.index("--")]
            options = {name for param in command.params for name in (*param.opts, *param.secondary_opts)} | {"--help"}
            for word in rest:
                if word.startswith("-") and command is not commands.lamp:
                    assert word.partition("=")[0] in options, f"{word} of {' '.join(words)}"

    def test_names_of_neon_api(self) -> None:
        rows = rows_of("from-neon-api.md", "## What is called how")
        told = {name for row in rows for name in re.findall(r"`old\.(\w+)", row[0])}
        public = {name for name, value in vars(NeonAPI).items() if callable(value) and not name.startswith("_")}
        assert told == public


class TestLinks:
    def anchors(self, text: str) -> set[str]:
        text = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
        headings = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
        return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}

    @pytest.mark.parametrize("page", TEXTS)
    def test_links_lead_somewhere(self, page: str) -> None:
        for target in re.findall(r"\]\(([^)]+)\)", TEXTS[page]):
            assert not target.startswith("http"), f"{target}: nobody has looked whether that is there"
            name, _, anchor = target.partition("#")
            place = (DOCS / page).parent.joinpath(name).resolve() if name else DOCS / page
            assert place.is_file(), target
            assert place.is_relative_to(ROOT)
            assert not anchor or anchor in self.anchors(place.read_text()), target

    def test_every_page_is_in_the_index(self) -> None:
        linked = {Path(target).name for target in re.findall(r"\]\(([^)#]+)", TEXTS["README.md"])}
        assert set(TEXTS) - {"README.md"} == linked
