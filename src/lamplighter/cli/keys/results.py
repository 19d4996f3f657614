"""How what came of rotations is shown, and with which status the command ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from lamplighter.cli.keys.common import failure_of_keys
from lamplighter.cli.keys.showing import seconds
from lamplighter.cli.output import Column, emit

if TYPE_CHECKING:
    from lamplighter.cli.keys.common import KeySession
    from lamplighter.keys.errors import KeysError
    from lamplighter.keys.fold import State
    from lamplighter.keys.manager import Result
    from lamplighter.keys.rotate import Outcome


def _ids(ids: Any) -> str:
    return ", ".join(map(str, ids or [])) or "-"


def _stores(sinks: Any) -> str:
    return ", ".join(f"{each['address']} ({each['proof']})" for each in sinks or []) or "-"


def _error(error: Any) -> str:
    return error["message"] if error else "-"


COLUMNS = (
    Column("lineage"),
    Column("state"),
    Column("key_id", "Key"),
    Column("name"),
    Column("scope.kind", "Scope"),
    Column("sinks", "Stores", show=_stores),
    Column("revoked", "Revoked", show=_ids),
    Column("until", "Soaks until", show=seconds),
    Column("consumer", "Used by a consumer"),
    Column("error", "Error", show=_error),
)
_LIST = tuple(each for each in COLUMNS if each.field not in ("scope.kind", "consumer"))


def result_fact(result: Result, state: State) -> dict[str, Any]:
    """For programs: what came of one lineage. `state` is the journal's afterwards. Pure."""
    known = state.lineage(result.lineage)
    outcome = _outcome_fact(result.outcome)
    key = known.keys.get(outcome["key_id"])
    return {
        "lineage": result.lineage,
        **outcome,
        "name": key.name if key else None,
        "scope": scope_fact(key.scope if key else known.scope),
        "error": result.error and _error_fact(result.error),
    }


def _outcome_fact(outcome: Outcome | None) -> dict[str, Any]:
    """All names are there, whatever came of it."""
    from lamplighter.keys.rotate import Outcome  # noqa: PLC0415 - `--help` does without

    known = outcome or Outcome(lineage="", state="nothing")
    return {
        "state": outcome.state if outcome else "failed",
        "rid": known.rid,
        "key_id": known.key_id,
        "sinks": [{"address": address, "proof": level} for address, level in known.levels.items()],
        "revoked": list(known.revoked),
        "consumer": known.consumer,
        "until": known.until.isoformat() if known.until else None,
        "foreign": [{"id": key_id, "name": name} for key_id, name in known.foreign.items()],
    }


def _error_fact(error: KeysError) -> dict[str, Any]:
    failure = failure_of_keys(error)
    return {
        "code": failure.code,
        "message": failure.message,
        "hint": failure.hint,
        "exit_code": failure.exit_code,
    }


def scope_fact(scope: Any) -> dict[str, Any] | None:
    """Pure."""
    return scope and {"kind": scope.kind, "org_id": scope.org_id, "project_id": scope.project_id}


def show_one(session: KeySession, result: Result) -> None:
    """One lineage that somebody named: its outcome, or its error as the command's. Raises KeysError."""
    if result.error is not None:
        raise result.error
    fact = result_fact(result, session.state())
    emit(session, fact, COLUMNS)
    _say_what_is_left(session, [fact])


def show_all(session: KeySession, results: Sequence[Result], *, empty: str) -> None:
    """Several: all outcomes, then the status of the first error."""
    facts = [result_fact(each, session.state()) for each in results]
    emit(session, facts, _LIST, empty=empty)
    _say_what_is_left(session, facts)
    failed = [each["error"] for each in facts if each["error"]]
    if failed and session.output == "table":
        for each in facts:
            if each["error"] and each["error"]["hint"]:
                session.note(f"Hint for {each['lineage']}: {each['error']['hint']}")
    if failed:
        click.get_current_context().exit(failed[0]["exit_code"])


def _say_what_is_left(session: KeySession, facts: Sequence[Mapping[str, Any]]) -> None:
    if session.output != "table":
        return
    for fact in facts:
        if fact["state"] == "soaking":
            until = seconds(fact["until"])
            session.note(f"{fact['lineage']}: the old key stays until {until}; then `lamp keys recover` revokes it.")
        for each in fact["foreign"]:
            session.note(
                f"{fact['lineage']}: key {each['id']} ({each['name']}) is live, and the journal does not know it."
            )
