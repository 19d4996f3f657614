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
    from lamplighter.keys.fold import State
    from lamplighter.keys.manager import Result


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


def fact_of(result: Result, state: State) -> dict[str, Any]:
    """For programs: what came of one lineage. `state` is the journal's afterwards. Pure."""
    outcome = result.outcome
    known = state.lineage(result.lineage)
    key_id = outcome.key_id if outcome else None
    key = known.keys.get(key_id) if key_id is not None else None
    scope = key.scope if key else known.scope
    failure = failure_of_keys(result.error) if result.error else None
    return {
        "lineage": result.lineage,
        "state": outcome.state if outcome else "failed",
        "rid": outcome.rid if outcome else None,
        "key_id": key_id,
        "name": key.name if key else None,
        "scope": scope_fact(scope),
        "sinks": [
            {"address": address, "proof": level} for address, level in (outcome.levels if outcome else {}).items()
        ],
        "revoked": list(outcome.revoked) if outcome else [],
        "consumer": outcome.consumer if outcome else None,
        "until": outcome.until.isoformat() if outcome and outcome.until else None,
        "foreign": [{"id": each, "name": name} for each, name in (outcome.foreign if outcome else {}).items()],
        "error": failure
        and {
            "code": failure.code,
            "message": failure.message,
            "hint": failure.hint,
            "exit_code": failure.exit_code,
        },
    }


def scope_fact(scope: Any) -> dict[str, Any] | None:
    """Pure."""
    return scope and {"kind": scope.kind, "org_id": scope.org_id, "project_id": scope.project_id}


def show_one(session: KeySession, result: Result) -> None:
    """One lineage that somebody named: its outcome, or its error as the command's. Raises KeysError."""
    if result.error is not None:
        raise result.error
    fact = fact_of(result, session.state())
    emit(session, fact, COLUMNS)
    _say_what_is_left(session, [fact])


def show_all(session: KeySession, results: Sequence[Result], *, empty: str) -> None:
    """Several: all outcomes, then the status of the first error."""
    facts = [fact_of(each, session.state()) for each in results]
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
