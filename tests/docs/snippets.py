"""Snippets of the documentation: found in a page, run as a reader would run them, compared with what the page shows."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"

#: Every kind of block that a page may have.
KINDS = frozenset({"python", "output", "console", "sh", "yaml", "toml", "json", "sql"})

#: Where `lamp up` is, unless it is told otherwise; the one of the tests is elsewhere.
SERVER = "http://127.0.0.1:7432"

_FENCE = re.compile(r"(`{3,})(.*)")
_COMMENT = re.compile(r"<!-- (.*) -->")
_SECONDS = 90

#: What differs from run to run, and what stands for it in both texts.
_CHANGING = (
    (re.compile(r"\x1b\[[0-9;]*m"), ""),
    (re.compile(r"\b(npg|napi)_(\w+|…)"), r"\1_SECRET"),
    (re.compile(r"\b(br|ep|org|snap)-[a-z]+-[a-z]+-[a-z0-9]{8}\b"), r"\1-ID"),
    (re.compile(r"\b[a-z]+-[a-z]+-[0-9]{8}\b"), "PROJECT-ID"),
    (re.compile(r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b"), "UUID"),
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z| UTC|\+00:00)?"), "TIME"),
    (re.compile(r"127\.0\.0\.1:\d+"), "127.0.0.1:PORT"),
    (re.compile(r"\b[\w.-]+@localhost"), "SOMEBODY@localhost"),
    (re.compile(r"[ \t]+"), " "),
)


@dataclass(frozen=True)
class Block:
    """A fenced block. `mark` is what the HTML comment right above it says: `not run: ...` or `file: NAME`."""

    page: str
    line: int
    kind: str
    text: str
    mark: str

    @property
    def place(self) -> str:
        return f"docs/{self.page}:{self.line}"

    @property
    def not_run(self) -> str | None:
        return self.mark.removeprefix("not run: ") if self.mark.startswith("not run: ") else None

    @property
    def file(self) -> str | None:
        return self.mark.removeprefix("file: ") if self.mark.startswith("file: ") else None


def pages() -> list[Path]:
    return sorted(DOCS.glob("*.md"))


def blocks_of(page: Path) -> list[Block]:
    """Raises AssertionError for a fence that is not at the start of a line, or is never closed."""
    found: list[Block] = []
    above, start, kind, fence = "", 0, "", ""
    inside: list[str] = []
    for number, line in enumerate(page.read_text().splitlines(), 1):
        if fence:
            if line.strip() == fence:
                comment = _COMMENT.fullmatch(above)
                found.append(Block(page.name, start, kind, "\n".join(inside) + "\n", comment[1] if comment else ""))
                fence, above, inside = "", "", []
            else:
                inside.append(line)
        elif opened := _FENCE.fullmatch(line):
            fence, kind, start = opened[1], opened[2].strip(), number + 1
        elif line.strip():
            assert "```" not in line, f"docs/{page.name}:{number}: a fence begins a line"
            above = line.strip()
    assert not fence, f"docs/{page.name}:{start}: this block has no end"
    return found


@dataclass(frozen=True)
class Command:
    """One `$ ...` of a console block, and what the page shows below it."""

    text: str
    shown: str


def commands_of(text: str) -> list[Command]:
    """Lines that begin with `$ `, and `> ` below them; one with a backslash at its end goes on too."""
    found: list[tuple[list[str], list[str]]] = []
    going_on = False
    for line in text.splitlines():
        if going_on:
            found[-1][0].append(line)
        elif line.startswith("$ "):
            found.append(([line[2:]], []))
        elif line.startswith("> ") and found and not found[-1][1]:
            found[-1][0].append(line[2:])
        else:
            assert found, f"a console block begins with a command, not with {line!r}"
            found[-1][1].append(line)
            continue
        going_on = line.endswith("\\")
    return [Command("\n".join(words), "\n".join(shown)) for words, shown in found]


def alike(shown: str, real: str) -> bool:
    """Whether a program said what the page shows. `…` stands for anything in a line, alone for any number of lines.

    Ids, times, secrets and the widths of columns do not count.
    """
    lines = (
        r"(.*\n)*" if line == "…" else ".*".join(re.escape(part) for part in line.split("…")) + r"\n"
        for line in _plain(shown).splitlines()
    )
    return re.fullmatch("".join(lines), "".join(f"{line}\n" for line in _plain(real).splitlines())) is not None


def _plain(text: str) -> str:
    for changing, instead in _CHANGING:
        text = changing.sub(instead, text)
    lines = (line.strip() for line in text.strip().splitlines())
    return "\n".join(line for line in lines if line)


class Reader:
    """Somebody who does what a page says, from its top to its end: one shell and one Python for all of it."""

    def __init__(self, place: Path, env: Mapping[str, str], *, server: str = "") -> None:
        self.place = place / "here"
        self.place.mkdir()
        self._state = place / "state"
        self._state.touch()
        self._cwd = place / "cwd"
        self._cwd.write_text(str(self.place))
        self._names: dict[str, Any] = {"__name__": "__docs__"}
        self._said: str | None = None
        self.env = {**env, "PATH": f"{_programs(place)}{os.pathsep}{env['PATH']}"}
        self._server = server
        #: What `${{ ... }}` of a workflow stands for.
        self.expressions: dict[str, str] = {}

    def read(self, block: Block) -> None:
        """Do what one block says. Raises AssertionError, and what its Python raises."""
        said, self._said = self._said, None
        if block.not_run is not None:
            return
        if self._server:
            block = replace(block, text=block.text.replace(SERVER, self._server))
        if block.file is not None:
            (self.place / block.file).write_text(block.text)
            return
        match block.kind:
            case "python":
                self._said = self._python(block)
            case "output":
                assert said is not None, f"{block.place}: output stands below the Python that prints it"
                assert alike(block.text, said), f"{block.place}: what is printed is\n{said}"
            case "console":
                for command in commands_of(block.text):
                    self._console(block, command)
            case "sh":
                status, out = self.shell(f"set -euo pipefail\n{block.text}")
                assert status == 0, f"{block.place}: status {status}\n{out}"
            case "yaml":
                self._yaml(block)
            case "toml":
                tomllib.loads(block.text)
            case "json":
                json.loads(block.text)
            case _:
                raise AssertionError(f"{block.place}: {block.kind!r} is no kind of block that can be run or read")

    def _python(self, block: Block) -> str:
        out = io.StringIO()
        # As many lines before it as the page has: a traceback then names the line of the page.
        code = compile("\n" * (block.line - 1) + block.text, str(DOCS / block.page), "exec")
        with contextlib.redirect_stdout(out):
            exec(code, self._names)
        return out.getvalue()

    def _console(self, block: Block, command: Command) -> None:
        status, out = self.shell(command.text)
        told = f"{block.place}: $ {command.text}\n{out}"
        assert "Traceback" not in out, told
        assert status == 0, f"{told}\nstatus {status}"
        if command.shown.strip():
            assert alike(command.shown, out), f"{told}\nbut the page shows\n{command.shown}"

    def shell(self, script: str, env: Mapping[str, str] | None = None) -> tuple[int, str]:
        """Run it where the last one ended, with what that exported. Answers status, and both streams in one."""
        keep = f'__kept=$?; export -p >"{self._state}"; pwd >"{self._cwd}"; exit $__kept'
        done = subprocess.run(
            ["bash", "-c", f'. "{self._state}"; cd "$(cat "{self._cwd}")"\n(exit 0)\n{script}\n{keep}'],
            env={**self.env, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
        return done.returncode, done.stdout

    def _yaml(self, block: Block) -> None:
        """A workflow of GitHub's is run step by step, but for what it installs and what the actions of others do."""
        known = yaml.safe_load(block.text)
        for job in known.get("jobs", {}).values():
            env = self._filled({**known.get("env", {}), **job.get("env", {})})
            later = self.place / ".github_env"
            later.touch()
            for step in job["steps"]:
                script = self._filled({"run": step.get("run", "")})["run"]
                if not script or script.startswith("pip install"):
                    continue
                env |= dict(line.split("=", 1) for line in later.read_text().splitlines())
                own = {**env, **self._filled(step.get("env", {})), "CI": "true", "GITHUB_ENV": str(later)}
                status, out = self.shell(f"set -euo pipefail\n{script}", own)
                assert status == 0, f"{block.place}: {script}\n{out}"

    def _filled(self, texts: Mapping[str, str]) -> dict[str, str]:
        """Texts without their `${{ ... }}`. The project is the one of this directory."""
        linked = self.place / ".neon"
        known = {**self.expressions}
        if linked.exists():
            known["vars.NEON_PROJECT_ID"] = json.loads(linked.read_text())["projectId"]
        return {
            name: re.sub(r"\$\{\{ (.*?) \}\}", lambda found: known[found[1]], str(text)) for name, text in texts.items()
        }

    def close(self) -> None:
        """Close what the page left open, as the end of a program does."""
        for value in self._names.values():
            if type(value).__module__.startswith(("lamplighter.client._sync.client", "psycopg")):
                with contextlib.suppress(AttributeError):
                    value.close()


def _programs(place: Path) -> Path:
    """`lamp`, `python` and `pytest` of this very environment, whatever is on the PATH besides."""
    programs = place / "bin"
    programs.mkdir()
    for name, words in {"lamp": "-m lamplighter", "python": "", "pytest": "-m pytest"}.items():
        file = programs / name
        file.write_text(f'#!/bin/sh\nexec "{sys.executable}" {words} "$@"\n')
        file.chmod(0o755)
    return programs
