"""`lamp keys emergency`: a key leaked."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import click

from lamplighter.cli.errors import FAILED, USAGE, Failure
from lamplighter.cli.groups import Command
from lamplighter.cli.keys.common import KeySession, failure_of_keys, keys_command
from lamplighter.cli.keys.options import org_option
from lamplighter.cli.output import Column, emit

if TYPE_CHECKING:
    from lamplighter.keys.emergency import Cut, Leak
    from lamplighter.keys.fold import State
    from lamplighter.keys.manager import Manager, Result
    from lamplighter.keys.value import KeyBuffer

#: More than any key has.
_LONGEST: Final = 4096
_SPACES: Final = b" \t\r\n\v\f"
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
    Column("unrecorded.message", "Not in the journal"),
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

    It waits for nobody: while a rotation is at work, or the disk is full, the key is revoked, and what the journal
    could not take is said. Another key then has to follow by `lamp keys rotate`.

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
    manager, state = _manager(session), _known(session)
    org_id = given["org_id"]
    leak = _by_value(manager, state) if leaked is None else by_text(leaked, manager, state, org_id=org_id)
    session.confirm(what_breaks(leak))
    if session.dry_run:
        session.note("Nothing was changed.")
        _show(session, _Done(leak), state)
        return
    with session.resumable():
        done = _act(session, manager, leak, state, swap=given["swap"], replace_it=not given["no_replace"])
    _show(session, done, _known(session, told=True))
    if done.result is not None and done.result.error is not None:
        click.get_current_context().exit(failure_of_keys(done.result.error).exit_code or FAILED)


def _known(session: KeySession, *, told: bool = False) -> State:
    """What the journal says, without its lock. One that cannot be read is no reason to leave a leaked key alive."""
    from lamplighter.keys.errors import JournalError  # noqa: PLC0415 - `--help` does without
    from lamplighter.keys.fold import State  # noqa: PLC0415 - the same

    try:
        return session.state()
    except JournalError as error:
        if not told:
            session.note(f"The journal tells nothing: {error}. Which stores hold the key is not known.")
    return State()


def _manager(session: KeySession) -> Manager:
    from lamplighter.cli.keys.hooks import hooks_of  # noqa: PLC0415 - `--help` does without

    return session.manager(hooks_of(session))


def _by_value(manager: Manager, state: State) -> Leak:
    from lamplighter.keys.emergency import by_value  # noqa: PLC0415 - `--help` does without
    from lamplighter.keys.harden import hardened  # noqa: PLC0415 - the same

    with hardened(), _read_value() as value:
        return by_value(value, manager, state)


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
    place = _within(held, count)
    try:
        if place is not None:
            with memoryview(held) as whole, whole[place] as part:
                return KeyBuffer(part)
    finally:
        wipe(held)
    raise Failure("there is no key on standard input", hint="pipe in the key alone", status=USAGE)


def _within(held: bytearray, count: int) -> slice | None:
    """Where the key is among these bytes, without the spaces around it; None where there is none. Makes no copy."""
    start, end = 0, count
    while start < end and held[start] in _SPACES:
        start += 1
    while end > start and held[end - 1] in _SPACES:
        end -= 1
    good = start < end <= _LONGEST and all(0x20 < held[at] < 0x7F for at in range(start, end))
    return slice(start, end) if good else None


@dataclass(frozen=True, slots=True)
class _Done:
    """What became of a leak. `cut` None: it was not to be revoked, or not any more. `result` is the replacement's."""

    leak: Leak
    cut: Cut | None = None
    result: Result | None = None
    revoked: bool = False


def _act(session: KeySession, manager: Manager, leak: Leak, state: State, *, swap: bool, replace_it: bool) -> _Done:
    """Revoke it and put another in its place, in the order that is wanted. Raises Failure when it is still live."""
    if not needs_another(leak, state):
        swap = replace_it = False
    result = _replace(manager, session, leak) if swap else None
    if swap and not _is_replaced(result):
        session.note("No other key could be put in its place: it is revoked all the same.")
    revoked = _cut(session, manager, leak) if leak.live else None
    if replace_it and not _is_replaced(result):
        result = _replace(manager, session, leak)
    return _Done(leak, revoked, result, revoked=True)


def _is_replaced(result: Result | None) -> bool:
    return result is not None and result.error is None


def _cut(session: KeySession, manager: Manager, leak: Leak) -> Cut | None:
    """None where a swap has revoked it already. Raises Failure."""
    from lamplighter.keys.emergency import cut  # noqa: PLC0415 - `--help` does without
    from lamplighter.keys.errors import KeysError  # noqa: PLC0415 - the same

    state = _known(session, told=True)
    if leak.key_id in state.lineage(leak.lineage or "").revoked:
        return None
    try:
        return cut(leak, manager, state)
    except KeysError as error:
        failed = failure_of_keys(error)
    session.note(f"KEY {leak.key_id} IS STILL LIVE.")
    raise failed


def needs_another(leak: Leak, state: State) -> bool:
    """Whether a store may hold the key: else another one is there, and consumers use it already. Pure."""
    return bool(leak.holders) or state.lineage(leak.lineage or "").unfinished


def _replace(manager: Manager, session: KeySession, leak: Leak) -> Result | None:
    """Another key into every store of the lineage, without a soak; None where no store is known."""
    from lamplighter.keys.errors import Busy, KeysError  # noqa: PLC0415 - `--help` does without
    from lamplighter.keys.manager import UNMANAGED, Result, target_of  # noqa: PLC0415 - the same

    if leak.lineage in (None, UNMANAGED):
        return None
    assert leak.lineage is not None
    try:
        target = target_of(leak.lineage, session.policy, session.state())
        if not target.sinks:
            return None
        rotation = manager.rotation(replace(target, consumer=None), wait=False, soak=0.0)
        outcome = rotation.run()
        if outcome.key_id == leak.key_id:
            # It was the new key of a rotation under way, which is now at its end: another has to follow.
            outcome = rotation.run()
    except KeysError as error:
        if isinstance(error, Busy) and error.key_id is None:
            error.hint = f"when that has ended: `lamp keys rotate {leak.lineage}`, if it did not replace the key itself"
        return Result(lineage=leak.lineage, error=error)
    return Result(lineage=leak.lineage, outcome=outcome)


def _show(session: KeySession, done: _Done, state: State) -> None:
    from lamplighter.cli.keys.results import result_fact  # noqa: PLC0415 - `--help` does without

    leak, result = done.leak, done.result
    unrecorded = _unrecorded(done.cut)
    fact = {
        "key_id": leak.key_id,
        "name": leak.name,
        "lineage": leak.lineage,
        "found_by": leak.how,
        "was_live": leak.live,
        "last_used_at": leak.last_used_at,
        "last_used_from": list(leak.last_used_from),
        "revoked": done.revoked or not leak.live,
        "unrecorded": unrecorded,
        "may_hold": list(leak.holders),
        "replacement": result_fact(result, state) if result else None,
    }
    emit(session, fact, _COLUMNS)
    if session.dry_run or session.output != "table":
        return
    if unrecorded is not None:
        lacks = ", ".join(unrecorded["records"])
        session.note(
            f"NOT IN THE JOURNAL ({lacks}): {unrecorded['message']}. Keep this: key {leak.key_id} ({leak.name}) was "
            "revoked now, for it leaked."
        )
    if result is not None and result.error is not None and result.error.hint:
        session.note(f"Hint: {result.error.hint}")
    if result is None and leak.live:
        session.note("No store is known that held it: whatever used it needs another key, from `lamp keys mint`.")


def _unrecorded(cut: Cut | None) -> dict[str, Any] | None:
    """For programs: what the journal lacks of a revocation. Pure."""
    if cut is None or cut.why is None:
        return None
    failure = failure_of_keys(cut.why)
    return {"records": list(cut.unrecorded), "code": failure.code, "message": failure.message}
