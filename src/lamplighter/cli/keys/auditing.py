"""`lamp keys audit`."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lamplighter import __version__
from lamplighter.cli.errors import USAGE, Failure
from lamplighter.cli.groups import Command
from lamplighter.cli.keys.common import failure_of_keys, keys_command
from lamplighter.cli.output import write
from lamplighter.cli.values import Moment
from lamplighter.keys.errors import KeysError, PolicyError

if TYPE_CHECKING:
    from lamplighter.cli.keys.common import KeySession
    from lamplighter.keys.audit import Audit

#: As `lamplighter.keys.report.FORMATS`, which is not loaded for `--help`.
OUTPUTS = ("table", "json", "csv", "markdown", "sarif", "prometheus")
#: `lamplighter.keys.audit.COULD_NOT_LOOK`.
COULD_NOT_LOOK = 3


@click.command(cls=Command)
@click.option("--addresses", is_flag=True, help="With where keys were used from, which may tell of people.")
@click.option(
    "--no-read", is_flag=True, help="Do not read values back from stores, not even to compare their fingerprints."
)
@click.option(
    "--fail-on", type=click.Choice(["info", "low", "medium", "high", "critical"]), help="The least that counts."
)
@click.option("--now", type=Moment(), metavar="TIME", help="Judge as of this time, to make the same report again.")
@click.option("--to-file", type=click.Path(dir_okay=False, path_type=Path), help="Write the report here, whole or not.")
@keys_command(outputs=OUTPUTS)
def audit(session: KeySession, **given: Any) -> None:
    """Look for keys and stores that are not as the policy says.

    Without a policy, by what the CIS benchmark for AWS asks: 90 days of age, 45 unused. What could not be looked at is
    never passed over.

    Exit status: 0 clean, 1 findings of at least --fail-on (high), 2 wrong usage or policy, 3 something could not be
    looked at, 4 a rotation is unfinished: `lamp keys recover`.

    \b
    Examples:
      lamp keys audit
      lamp keys audit -o sarif --to-file keys.sarif
      lamp keys audit -o markdown --to-file evidence.md
    """  # noqa: D301 - click wants the character itself
    from lamplighter.keys.report import render  # noqa: PLC0415 - `--help` does without
    from lamplighter.keys.report_base import Meta  # noqa: PLC0415 - the same

    try:
        found = _audit(session, given)
    except PolicyError:
        raise
    except KeysError as error:
        # Whatever it was: nothing was looked at, and that is neither clean nor a finding.
        raise _could_not_look(failure_of_keys(error)) from None
    except Failure as failure:
        raise (failure if failure.exit_code == USAGE else _could_not_look(failure)) from None
    path = session.policy_path
    meta = Meta(version=__version__, policy_path=str(path or ""), addresses=given["addresses"])
    text = render(found, session.output, meta)  # type: ignore[arg-type] # the outputs of this command
    if given["to_file"] is None:
        write(text)
    else:
        from lamplighter.files import write_atomic  # noqa: PLC0415 - for a file only

        write_atomic(given["to_file"].absolute(), text.encode(), mode=0o644)
    click.get_current_context().exit(found.exit_code)


def _could_not_look(failure: Failure) -> Failure:
    return Failure(
        failure.message,
        hint=failure.hint,
        status=COULD_NOT_LOOK,
        http_status=failure.http_status,
        code=failure.code,
        request_id=failure.request_id,
    )


def _own(session: KeySession) -> frozenset[int]:
    """Ids of keys of which one is the minter's. That nothing is known of it keeps no audit from looking."""
    with suppress(KeysError):
        return session.manager().maybe_own(session.state())
    return frozenset()


def _audit(session: KeySession, given: dict[str, Any]) -> Audit:
    from dataclasses import replace  # noqa: PLC0415 - for an option only

    from lamplighter.keys.audit import audit as judge  # noqa: PLC0415 - `--help` does without
    from lamplighter.keys.inventory import collect, parse_sinks  # noqa: PLC0415 - the same

    policy = session.policy
    if given["fail_on"]:
        policy = replace(policy, defaults=replace(policy.defaults, fail_on=given["fail_on"]))
    sinks = parse_sinks(policy)
    with session.waiting("Looking at keys and stores"):
        inventory = collect(
            session.neon,
            policy,
            journal=session.state_dir,
            sinks=sinks,
            read_values=not given["no_read"],
            own=_own(session),
        )
    for sink in sinks.values():
        sink.close()
    return judge(inventory, policy, now=given["now"] or datetime.now(UTC))
