"""`lamp keys mint`, `rotate` and `recover`."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from lamplighter.cli.errors import CONFLICT, USAGE, Failure
from lamplighter.cli.groups import Command
from lamplighter.cli.keys.common import keys_command
from lamplighter.cli.keys.options import Span, org_option, rotating, scope_from, to_option

if TYPE_CHECKING:
    from lamplighter.cli.keys.common import KeySession
    from lamplighter.keys.manager import Due, Manager, Target


def _with_options(target: Target, given: dict[str, Any]) -> Target:
    """The target with what was said on the command line."""
    said = {name: given[name] for name in ("soak", "smoke", "consumer") if given[name] is not None}
    return replace(target, **said, allow=tuple(dict.fromkeys((*target.allow, *given["allow"]))))


def _manager(session: KeySession, given: dict[str, Any]) -> Manager:
    from lamplighter.cli.keys.hooks import hooks_of  # noqa: PLC0415 - `--help` does without

    return session.manager(hooks_of(session, before=given["before"], after=given["after"], allow=given["allow"]))


# mint


@click.command(cls=Command)
@click.option("--name", metavar="PATTERN", help="What the key is called; {year}, {quarter} and {month} are filled in.")
@click.option("--lineage", metavar="NAME", help="What the key and those after it are together. [default: of the name]")
@to_option
@click.option("--scope", type=click.Choice(["personal", "organization", "project"]), help="What the key reaches.")
@org_option
@click.option("--project-id", metavar="ID", help="The one project that the key reaches.")
@rotating
@keys_command(changes=True)
def mint(session: KeySession, name: str | None, lineage: str | None, places: tuple[str, ...], **given: Any) -> None:
    """Mint a key and put it into stores; nobody sees its value.

    The narrower the better: with --project-id it reaches that project alone, with --org-id that organization, else all
    that its user does. Its name gets a rotation id at its end, by which it is found again whatever happens.

    Exit status: 0 the key was minted, every store has it, and each was proven as far as it can be; else what failed,
    and then the key is withdrawn, or `lamp keys recover` goes on.

    \b
    Examples:
      lamp keys mint --name ci-2026-Q4 --to dotenv:.env#NEON_API_KEY
      lamp keys mint --name 'ci-{year}-Q{quarter}' --project-id calm-sun-12345678 \\
        --to github:OWNER/REPO/NEON_API_KEY --to dotenv:.env#NEON_API_KEY --smoke 'gh workflow run neon.yml'
    """  # noqa: D301 - click wants the character itself
    from lamplighter.cli.keys.results import show_one  # noqa: PLC0415 - `--help` does without
    from lamplighter.keys.manager import sinks_named  # noqa: PLC0415 - the same

    target = _with_options(_new_target(session, name, lineage, given), given)
    target = target.with_sinks(sinks_named(places, session.policy))
    if not target.sinks:
        raise Failure(
            "it is not said where the key goes, and nobody could see it", hint="give --to, once or more", status=USAGE
        )
    known = session.state().lineage(target.lineage)
    if known.live and not known.unfinished:
        ids = ", ".join(map(str, sorted(known.live)))
        raise Failure(
            f"{target.lineage} has a key already: {ids}",
            hint=f"`lamp keys rotate {target.lineage}` puts another in its place; --lineage begins another",
            status=CONFLICT,
        )
    if session.dry_run:
        _plan(session, [target])
        return
    manager = _manager(session, given)
    with session.resumable():
        show_one(session, manager.rotate([target], wait=given["wait"], take_over=given["take_over"])[0])


def _new_target(session: KeySession, name: str | None, lineage: str | None, given: dict[str, Any]) -> Target:
    """Of the policy where it has the lineage, else of the options."""
    from lamplighter.keys.manager import Target, lineage_of_name, naming_for, target_of  # noqa: PLC0415 - `--help`
    from lamplighter.keys.naming import Naming  # noqa: PLC0415 - the same

    prefix = session.policy.neon.prefix
    if name is None and lineage is None:
        raise Failure("it is not said what the key is called", hint="give --name", status=USAGE)
    chosen = lineage or lineage_of_name(name or "", prefix=prefix)
    if chosen in session.policy.lineages:
        target = target_of(chosen, session.policy, session.state())
        for option in ("scope", "org_id", "project_id"):
            if given[option] is not None:
                raise Failure(
                    f"what keys of {chosen} reach is said by the policy",
                    hint=f"leave out --{option.replace('_', '-')}, or give another --lineage",
                    status=USAGE,
                )
    else:
        scope = scope_from(session, given["scope"], given["org_id"], given["project_id"])
        target = Target(lineage=chosen, naming=Naming(chosen, prefix=prefix), scope=scope)
    if name is None:
        return target
    return replace(target, naming=naming_for(chosen, name, prefix=prefix, now=datetime.now(UTC)))


# rotate


@click.command(cls=Command)
@click.argument("lineages", metavar="[LINEAGE]...", nargs=-1)
@click.option("--all", "all_", is_flag=True, help="Every lineage of the policy and of the journal.")
@click.option("--due", is_flag=True, help="Those that are close to their greatest age, and what is unfinished.")
@click.option("--within", type=Span(), metavar="DURATION", help="With --due: how close. [default: due_soon, 14d]")
@click.option("--id", "key_id", type=click.IntRange(min=1), metavar="N", help="The lineage of this key.")
@to_option
@click.option(
    "--lineage", "into", metavar="NAME", help="With --id: the lineage that takes it in. [default: of its name]"
)
@org_option
@rotating
@keys_command(changes=True)
def rotate(session: KeySession, lineages: tuple[str, ...], **given: Any) -> None:
    """Put a new key in the place of an old one, in every store, then revoke the old one.

    The old key is revoked only when no store may hold it, the new one is proven in each, and nobody used the old one
    during the soak. What was interrupted before goes on. With --due it is made for cron and CI: run it every day.

    Exit status: 0 all that was asked for is done, or soaks (--no-wait); 4 the old key is still in use, or another
    rotation is at work; else what failed. The old key then stays, and `lamp keys recover` goes on.

    \b
    Examples:
      lamp keys rotate ci
      lamp keys rotate --due --no-wait --output json
      lamp keys rotate --id 123 --to dotenv:.env#NEON_API_KEY --smoke 'make smoke'
    """  # noqa: D301 - click wants the character itself
    from lamplighter.cli.keys.results import show_all, show_one  # noqa: PLC0415 - `--help` does without

    _check_choice(lineages, given)
    manager = _manager(session, given)
    if given["due"]:
        _rotate_due(session, manager, given)
        return
    targets = _targets(session, manager, lineages, given)
    if session.dry_run:
        _plan(session, targets)
        return
    with session.resumable():
        results = manager.rotate(targets, wait=given["wait"], take_over=given["take_over"])
    if len(lineages) == 1 or given["key_id"] is not None:
        show_one(session, results[0])
    else:
        show_all(session, results, empty="There is no lineage yet: `lamp keys mint` begins one.")


def _check_choice(lineages: tuple[str, ...], given: dict[str, Any]) -> None:
    chosen = [bool(lineages), given["all_"], given["due"], given["key_id"] is not None]
    if sum(chosen) != 1:
        raise click.UsageError("Give either a LINEAGE, --all, --due or --id.")
    if given["places"] and (given["all_"] or given["due"] or len(lineages) > 1):
        raise click.UsageError("--to is for one lineage: the policy says where the others go.")
    if given["within"] is not None and not given["due"]:
        raise click.UsageError("--within goes with --due.")
    if given["key_id"] is None and (given["into"] or given["org_id"]):
        raise click.UsageError("--lineage and --org-id go with --id.")


def _targets(session: KeySession, manager: Manager, lineages: tuple[str, ...], given: dict[str, Any]) -> list[Target]:
    from lamplighter.keys.manager import sinks_named, target_of  # noqa: PLC0415 - `--help` does without

    state, sinks = session.state(), sinks_named(given["places"], session.policy)
    if given["key_id"] is not None:
        return [_with_options(_of_key(session, manager, sinks, given), given)]
    names = manager.names(state) if given["all_"] else lineages
    targets = [target_of(name, session.policy, state).with_sinks(sinks) for name in dict.fromkeys(names)]
    for each in targets:
        if not each.sinks:
            raise Failure(
                f"nothing says where the key of {each.lineage} goes",
                hint="give --to, or sinks in the policy",
                status=USAGE,
            )
    return [_with_options(each, given) for each in targets]


def _of_key(session: KeySession, manager: Manager, sinks: tuple[Any, ...], given: dict[str, Any]) -> Target:
    """The lineage of a key; one that no lineage has is taken into one first."""
    from lamplighter.cli.keys.ending import choose_lineage  # noqa: PLC0415 - `--help` does without
    from lamplighter.keys.manager import Target, naming_for, target_of  # noqa: PLC0415 - the same

    state, key_id = session.state(), given["key_id"]
    known = state.lineage_of(key_id)
    if known is not None:
        if given["into"] not in (None, known.name):
            raise Failure(f"key {key_id} is of {known.name}", hint="leave out --lineage", status=USAGE)
        target = target_of(known.name, session.policy, state).with_sinks(sinks)
        if not target.sinks:
            raise Failure("nothing says where the new key goes", hint="give --to", status=USAGE)
        return target
    key, scope = manager.find(key_id, org_id=given["org_id"], state=state)
    name = choose_lineage(session, key.name, given["into"])
    if name in session.policy.lineages:
        target = target_of(name, session.policy, state).with_sinks(sinks)
    else:
        naming = naming_for(name, key.name, prefix=session.policy.neon.prefix, now=datetime.now(UTC))
        target = Target(lineage=name, naming=naming, scope=scope, sinks=sinks)
    if not target.sinks:
        raise Failure(
            f"nothing says which stores hold key {key_id}, and so where the new one goes",
            hint="give --to",
            status=USAGE,
        )
    if not session.dry_run:
        # Those that do not hold it get the new key all the same.
        manager.adopt(key, scope, lineage=name, sinks=_holding(target.sinks))
    return target


def _holding(sinks: tuple[Any, ...]) -> tuple[Any, ...]:
    """Those that hold something, as far as they say: one that is empty does not hold the old key."""
    return tuple(each for each in sinks if each.metadata() is not None)


def _rotate_due(session: KeySession, manager: Manager, given: dict[str, Any]) -> None:
    from lamplighter.cli.keys.results import show_all  # noqa: PLC0415 - `--help` does without
    from lamplighter.keys.manager import target_of  # noqa: PLC0415 - the same

    state = session.state()
    due = manager.due(state, manager.live(manager.scopes(state)), within=given["within"])
    wanted = [each for each in due if each.now]
    if session.dry_run:
        _plan(session, [target_of(each.lineage, session.policy, state) for each in wanted], due=due)
        return
    for each in due:
        session.note(f"{each.lineage}: {each.reason}{'' if each.now else ', not due' + _until(each)}")
    with session.resumable():
        # What soaks, or was interrupted, is not a new rotation: it only goes on.
        unfinished = {name for name, known in state.lineages.items() if known.unfinished or known.watched}
        results = manager.recover(wait=given["wait"])
        targets = [
            _with_options(target_of(each.lineage, session.policy, state), given)
            for each in wanted
            if each.lineage not in unfinished
        ]
        results += manager.rotate(targets, wait=given["wait"], take_over=given["take_over"])
    kept = [each for each in results if each.error or (each.outcome and each.outcome.state != "nothing")]
    show_all(session, kept, empty="Nothing is due.")


def _until(due: Due) -> str:
    return f" before {due.at:%Y-%m-%d}" if due.at else ""


def _plan(session: KeySession, targets: list[Target], *, due: list[Due] | None = None) -> None:
    from lamplighter.cli.keys.planning import show_plan  # noqa: PLC0415 - for a dry run only

    show_plan(session, targets, due=due)


# recover


def _other_smoke(lineages: tuple[str, ...], given: dict[str, Any]) -> str | None:
    """What to run in the place of the smoke command that a rotation was begun with: empty for nothing. Pure."""
    if given["smoke"] is None and not given["skip_smoke"]:
        return None
    if len(lineages) != 1:
        raise click.UsageError("--smoke and --skip-smoke go with one LINEAGE.")
    if given["smoke"] is not None and given["skip_smoke"]:
        raise click.UsageError("Give --smoke or --skip-smoke, not both.")
    if given["smoke"] == "":
        raise click.UsageError("--smoke is empty: --skip-smoke goes on without.")
    return given["smoke"] or ""


@click.command(cls=Command)
@click.argument("lineages", metavar="[LINEAGE]...", nargs=-1)
@click.option(
    "--wait/--no-wait", default=False, show_default=True, help="Whether to stay until the soak of a rotation is over."
)
@click.option("--smoke", metavar="COMMAND", help="Run this in the place of the smoke command of the rotation.")
@click.option("--skip-smoke", is_flag=True, help="Go on without the smoke command of the rotation.")
@click.option("--allow", multiple=True, metavar="NAME", help="A variable that smoke commands may see.")
@keys_command(changes=True)
def recover(session: KeySession, lineages: tuple[str, ...], wait: bool, **given: Any) -> None:
    """Finish or undo what was interrupted, of all lineages or of those that are named.

    May be run at any time, and again: where nothing is unfinished nothing happens. Keys that were minted and reached no
    store are revoked; a rotation whose stores got the new key goes on from where it was. Where that is its smoke
    command, the same is run again; for one LINEAGE another may be given, or none.

    Exit status: 0 nothing is unfinished but soaks; else what is in the way of the first that is.

    \b
    Examples:
      lamp keys recover
      lamp keys recover ci --wait
      lamp keys recover ci --smoke 'make smoke'
    """  # noqa: D301 - click wants the character itself
    from lamplighter.cli.keys.hooks import hooks_of  # noqa: PLC0415 - `--help` does without
    from lamplighter.cli.keys.results import show_all  # noqa: PLC0415 - the same

    smoke = _other_smoke(lineages, given)
    state = session.state()
    unknown = [each for each in lineages if each not in state.lineages]
    if unknown:
        from lamplighter.keys.errors import PolicyError  # noqa: PLC0415 - for a mistake only

        raise PolicyError(f"the journal has no lineage {unknown[0]!r}", hint="`lamp keys status` shows them")
    if session.dry_run:
        from lamplighter.cli.keys.showing import show_unfinished  # noqa: PLC0415 - for a dry run only

        show_unfinished(session, state, only=lineages)
        return
    if not any(each.unfinished or each.watched for each in state.lineages.values()):
        show_all(session, [], empty="Nothing is unfinished.")
        return
    with session.resumable():
        results = session.manager(hooks_of(session)).recover(
            only=lineages or None, wait=wait, smoke=smoke, allow=given["allow"]
        )
    kept = [each for each in results if each.error or (each.outcome and each.outcome.state != "nothing")]
    show_all(session, kept, empty="Nothing is unfinished.")
