"""Who hears of the steps of a rotation: people, on standard error, and commands of the user's."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from lamplighter.keys.errors import KeysError
from lamplighter.keys.harden import child_environment
from lamplighter.keys.manager import Hooks

if TYPE_CHECKING:
    from lamplighter.cli.keys.common import KeySession
    from lamplighter.keys.rotate import Event

_SECONDS = 600.0


class HookFailed(KeysError):
    """The command of --before or --after failed, so the rotation stopped there."""

    hint = "put it right, then run `lamp keys recover`"


def hooks_of(
    session: KeySession, *, before: str | None = None, after: str | None = None, allow: tuple[str, ...] = ()
) -> Hooks:
    """Steps are told as they begin; `before` and `after` are shell commands that see LAMP_KEYS_STEP and the like."""
    return Hooks(
        progress=lambda event: session.note(f"{event.lineage}: {event.sentence}"),
        before=lambda event: _run(before, event, allow),
        after=lambda event: _run(after, event, allow),
    )


def _run(command: str | None, event: Event, allow: tuple[str, ...]) -> None:
    if command is None:
        return
    facts = {
        "LAMP_KEYS_LINEAGE": event.lineage,
        "LAMP_KEYS_STEP": event.step,
        "LAMP_KEYS_RID": event.rid,
        "LAMP_KEYS_KEY_ID": event.key_id,
        "LAMP_KEYS_SINK": event.sink,
    }
    known = {name: str(value) for name, value in facts.items() if value is not None}
    why = ""
    try:
        done = subprocess.run(
            ["/bin/sh", "-c", command],
            env=child_environment(allow=allow) | known,
            stdin=subprocess.DEVNULL,
            # Our own stdout may be read by a program.
            stdout=2,
            timeout=_SECONDS,
            check=False,
        )
        why = f"ended with {done.returncode}" if done.returncode else ""
    except subprocess.TimeoutExpired:
        why = f"did not end within {_SECONDS:g} s"
    except OSError as error:
        why = f"cannot be run: {error.strerror}"
    if why:
        raise HookFailed(f"the command around the step `{event.step}` {why}")
