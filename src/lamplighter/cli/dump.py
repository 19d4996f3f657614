"""A database's schema by `pg_dump`, over an ordinary connection."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from lamplighter.cli.connection_string import resolve
from lamplighter.cli.connections import environment
from lamplighter.cli.errors import Failure
from lamplighter.cli.programs import find_program
from lamplighter.cli.psql import wake
from lamplighter.cli.values import Source

if TYPE_CHECKING:
    from lamplighter.api.models.branches import Branch
    from lamplighter.cli.session import Session

_LOCK_WAIT_MS = 30_000


def dump_schema(session: Session, branch: Branch, database: str) -> str:
    """SQL. Starts the branch's endpoint when it is suspended. Raises Failure with what `pg_dump` said."""
    major = session.neon.projects.get(session.project_id()).pg_version
    program = find_program("pg_dump", least=major)
    parts, endpoint = resolve(
        session, Source(branch.id), role=None, database=database, pooled=False, kind=None, ssl=None
    )
    wake(session, endpoint)
    with session.waiting(f"Reading the schema of {database} on {branch.name}"):
        done = subprocess.run(
            [program.path, "--schema-only", "--no-password", f"--lock-wait-timeout={_LOCK_WAIT_MS}"],
            env=environment(parts, os.environ) | program.environment,
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            stdin=subprocess.DEVNULL,
            check=False,
        )
    if done.returncode:
        said = done.stderr.strip() or f"status {done.returncode}"
        raise Failure(f"the schema of {database} on {branch.name} cannot be read: {said}")
    return done.stdout
