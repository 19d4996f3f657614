"""`lamp keys emergency`: a key leaked."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import click

from lamplighter.cli.errors import FAILED, USAGE, Failure
from lamplighter.cli.groups import Command
from lamplighter.cli.keys.common import KeySession, failure_of_keys, keys_command
from lamplighter.cli.keys.options import org_option
from lamplighter.cli.output import Column, emit

if TYPE_CHECKING:
    from lamplighter.keys.emergency import Leak
    from lamplighter.keys.fold import State
    from lamplighter.keys.manager import Manager, Result
    from lamplighter.keys.value import KeyBuffer

#: More than any key has.
_LONGEST: Final = 4096
#: Neon's keys, of today and of before they had a prefix.
_LOOKS_LIKE_A_KEY: Final = re.compile(r"napi_.*|[a-z0-9]{64,}")


def _is_done(value: Any) -> str:
    return "yes" if value else "no"


_COLUMNS = (
    Column("key_id", "Key"),
    Column("name"),
    Column("lineage"),
    Column("found_by", "Told by"),
    Column("was_live", "Was live"),
    Column("revoked", "Revoked", show=_is_done),
    Column("may_hold", "May hold it"),
    Column("replacement.state", "Replacement"),
    Column("replacement.key_id", "New key"),
    Column("replacement.error.message", "Not replaced"),
)


@click.command(cls=Command)
@click.argument("leaked", metavar="[ID|NAME]", required=False)
@click.option("--stdin", is_flag=True, help="Read the leaked value itself from standard input.")
@click.option("--swap", is_flag=True, help="Put another key in its place first, then revoke it: no outage, but later.")
@click.option("--no-replace", is_flag=True, help="Only revoke it.")
@org_option
@keys_command(destructive=True)
def emergency(session: KeySession, leaked: str | None, **given: Any) -> None:
    """A key leaked: find out which one it is, revoke it now, then put another in its place in every store.

    With --stdin the leaked value itself is read from there, or asked for without echo; the command line is no place
    for it. The journal knows it by its fingerprint; one that it does not know is used once, to see which key
    Neon notes a use of. Shown first: what fails until the new key is there.

    Exit status: 0 it is revoked, and replaced in the stores that may hold it; 3 there is no such key; else what failed.
    Whether it was revoked is in the output in any case.

    \b
    Examples:
      lamp keys emergency 123
      lamp keys emergency ci-2026-Q4 --swap
      lamp keys emergency --stdin --yes < leaked.txt
    """  # noqa: D301 - click wants the character itself
    from lamplighter.keys.emergency import by_text, what_breaks  # noqa: PLC0415 - `--help` does without

    if (leaked is None) != given["stdin"]:
        raise click.UsageError("Give either the ID or NAME of the key, or --stdin.")
    if leaked is not None and _LOOKS_LIKE_A_KEY.fullmatch(leaked):
        raise Failure(
            "that is a key itself, and now it is in the history of the shell as well",
            hint="give its id or name, or --stdin and the key there; clear the history",
            status=USAGE,
        )
    if given["swap"] and given["no_replace"]:
        raise click.UsageError("Give --swap or --no-replace, not both.")
    # Somebody waits: what cannot be used is said before the value is asked for.
    manager = _manager(session)
    if leaked is None or not session.dry_run:
        _have_the_journal(session)
    if leaked is None:
        leak = _by_value(session, manager)
    else:
        leak = by_text(leaked, manager, session.state(), org_id=given["org_id"])
    session.confirm(what_breaks(leak))
    if session.dry_run:
        session.note("Nothing was changed.")
        _show(session, leak, revoked=False, result=None)
        return
    with session.resumable():
        _act(session, manager, leak, swap=given["swap"], replace_it=not given["no_replace"])


def _have_the_journal(session: KeySession) -> None:
    from lamplighter.keys.errors import Busy  # noqa: PLC0415 - `--help` does without

    try:
        with session.journal:
            return
    except Busy as error:
        why = error.message
    raise Busy(why, hint="end that process, for nothing is lost by it, and run this again; `lamp keys recover` goes on")


def _manager(session: KeySession) -> Manager:
    from lamplighter.cli.keys.hooks import hooks_of  # noqa: PLC0415 - `--help` does without

    return session.manager(hooks_of(session))


def _by_value(session: KeySession, manager: Manager) -> Leak:
    from lamplighter.keys.emergency import by_value  # noqa: PLC0415 - `--help` does without
    from lamplighter.keys.harden import hardened  # noqa: PLC0415 - the same

    with hardened(), _read_value() as value, session.journal:
        return by_value(value, manager)


def _read_value() -> KeyBuffer:
    from lamplighter.keys.value import KeyBuffer, wipe  # noqa: PLC0415 - `--help` does without

    if sys.stdin.isatty():
        typed = click.prompt("The leaked key", hide_input=True, err=True)
        return KeyBuffer(bytearray(typed.strip().encode()))
    held = bytearray(_LONGEST + 1)
    count = 0
    # Unbuffered: what Python keeps of it nobody could wipe.
    with open(0, "rb", buffering=0, closefd=False) as stream:
        while count < len(held) and (got := stream.readinto(memoryview(held)[count:])):
            count += got
    start, end = 0, count
    while start < end and held[start : start + 1].isspace():
        start += 1
    while end > start and held[end - 1 : end].isspace():
        end -= 1
    good = start < end <= _LONGEST and all(0x20 < byte < 0x7F for byte in held[start:end])
    try:
        if good:
            with memoryview(held) as whole, whole[start:end] as part:
                return KeyBuffer(part)
    finally:
        wipe(held)
    raise Failure("there is no key on standard input", hint="pipe in the key alone", status=USAGE)


def _act(session: KeySession, manager: Manager, leak: Leak, *, swap: bool, replace_it: bool) -> None:
    from lamplighter.keys.emergency import cut  # noqa: PLC0415 - `--help` does without
    from lamplighter.keys.errors import KeysError  # noqa: PLC0415 - the same

    result, revoked, failed = None, not leak.live, None
    if not needs_another(leak, session.state()):
        swap = replace_it = False
    if swap:
        result = _replace(manager, session, leak)
        if result is None or result.error is not None:
            session.note("No other key could be put in its place: it is revoked all the same.")
    if leak.live:
        # A swap may have revoked it already.
        gone = leak.key_id in session.state().lineage(leak.lineage or "").revoked
        try:
            revoked = gone or cut(leak, manager) or True
        except KeysError as error:
            failed = failure_of_keys(error)
    if replace_it and failed is None and (result is None or result.error is not None):
        result = _replace(manager, session, leak)
    if failed is not None:
        session.note(f"KEY {leak.key_id} IS STILL LIVE.")
        raise failed
    _show(session, leak, revoked=revoked, result=result)
    if result is not None and result.error is not None:
        click.get_current_context().exit(failure_of_keys(result.error).exit_code or FAILED)


def needs_another(leak: Leak, state: State) -> bool:
    """Whether a store may hold the key: else another one is there, and consumers use it already. Pure."""
    return bool(leak.holders) or state.lineage(leak.lineage or "").unfinished


def _replace(manager: Manager, session: KeySession, leak: Leak) -> Result | None:
    """Another key into every store of the lineage, without a soak; None where no store is known."""
    from lamplighter.keys.errors import KeysError  # noqa: PLC0415 - `--help` does without
    from lamplighter.keys.manager import UNMANAGED, Result, target_of  # noqa: PLC0415 - the same

    if leak.lineage in (None, UNMANAGED):
        return None
    assert leak.lineage is not None
    try:
        target = target_of(leak.lineage, session.policy, session.state())
        if not target.sinks:
            return None
        outcome = manager.rotation(replace(target, consumer=None), wait=False, soak=0.0).run()
    except KeysError as error:
        return Result(lineage=leak.lineage, error=error)
    return Result(lineage=leak.lineage, outcome=outcome)


def _show(session: KeySession, leak: Leak, *, revoked: bool, result: Result | None) -> None:
    from lamplighter.cli.keys.results import fact_of  # noqa: PLC0415 - `--help` does without

    fact = {
        "key_id": leak.key_id,
        "name": leak.name,
        "lineage": leak.lineage,
        "found_by": leak.how,
        "was_live": leak.live,
        "last_used_at": leak.last_used_at,
        "last_used_from": list(leak.last_used_from),
        "revoked": revoked,
        "may_hold": list(leak.holders),
        "replacement": fact_of(result, session.state()) if result else None,
    }
    emit(session, fact, _COLUMNS)
    if session.dry_run or session.output != "table":
        return
    if result is None and leak.live:
        session.note("No store is known that held it: whatever used it needs another key, from `lamp keys mint`.")
