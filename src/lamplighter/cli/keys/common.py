"""What every verb of `lamp keys` has at hand: policy, journal, server, and how their errors end the command."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from lamplighter.cli.errors import (
    AUTHENTICATION,
    CONFLICT,
    FAILED,
    NOT_THERE,
    RATE_LIMITED,
    USAGE,
    Failure,
    failure_of,
)
from lamplighter.cli.groups import CommonOption
from lamplighter.cli.output import OUTPUTS, Output
from lamplighter.cli.session import Options, Session
from lamplighter.keys import errors

if TYPE_CHECKING:
    from lamplighter import Neon
    from lamplighter.keys.fold import State
    from lamplighter.keys.journal import Journal
    from lamplighter.keys.manager import Hooks, Manager
    from lamplighter.keys.minter import Minter
    from lamplighter.keys.neon import NeonKeys
    from lamplighter.keys.policy import Policy

R = TypeVar("R")

MINTER_VARIABLE: Final = "LAMP_KEYS_MINTER"
_NOT_EMPTY: Final = ("minter", "api_host")

#: The first that fits, so that the special stand before the general.
_STATUSES: Final[tuple[tuple[type[errors.KeysError], int], ...]] = (
    (errors.PolicyError, USAGE),
    (errors.Busy, CONFLICT),
    (errors.Held, CONFLICT),
    (errors.MinterUnfit, AUTHENTICATION),
    (errors.SinkRefused, AUTHENTICATION),
    (errors.SinkNotFound, NOT_THERE),
)


def failure_of_keys(error: errors.KeysError) -> Failure:
    """The failure that an error of the key manager stands for. `code` is its kind, as in `sink_unreachable`. Pure."""
    status = next((number for kind, number in _STATUSES if isinstance(error, kind)), FAILED)
    of_http = getattr(error, "status", 0)
    if status == FAILED:
        status = {404: NOT_THERE, 429: RATE_LIMITED}.get(of_http, FAILED)
    name = type(error).__name__
    code = "".join(f"_{each.lower()}" if each.isupper() else each for each in name).lstrip("_")
    return Failure(
        str(error),
        hint=error.hint or "",
        status=status,
        http_status=of_http or None,
        code=code,
        request_id=getattr(error, "request_id", None),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyOptions:
    """The common options of `lamp keys` as they were given."""

    policy: Path | None = None
    state_dir: Path | None = None
    minter: str | None = None


class KeySession(Session):
    """One run of a verb. Everything is made when it is first used, and `close` ends it."""

    def __init__(self, options: Options, keys: KeyOptions) -> None:
        super().__init__(options)
        self._keys = keys
        #: Where the minter key goes, if a verb found that out itself.
        self.host: str | None = None

    # Policy and journal: no network

    @cached_property
    def policy_path(self) -> Path | None:
        """The policy that is used; None where there is none."""
        from lamplighter.keys.manager import find_policy  # noqa: PLC0415 - `--help` does without

        return self._keys.policy or find_policy(cwd=Path.cwd(), config_home=config_home())

    @cached_property
    def policy(self) -> Policy:
        """An empty one where there is none."""
        from lamplighter.keys.manager import load_policy  # noqa: PLC0415 - `--help` does without
        from lamplighter.keys.policy import Policy  # noqa: PLC0415 - the same

        return Policy() if self.policy_path is None else load_policy(self.policy_path)

    @cached_property
    def state_dir(self) -> Path:
        from lamplighter.keys.manager import state_directory  # noqa: PLC0415 - `--help` does without

        return self._keys.state_dir or state_directory(os.environ)

    @cached_property
    def journal(self) -> Journal:
        from lamplighter.keys.journal import Journal  # noqa: PLC0415 - `--help` does without

        return Journal(self.state_dir)

    def state(self) -> State:
        """What the journal says now, without its lock."""
        from lamplighter.keys.manager import read_state  # noqa: PLC0415 - `--help` does without

        return read_state(self.state_dir)

    # The server

    @cached_property
    def minter(self) -> Minter:
        """Where the minter key is: --minter, the policy, LAMP_KEYS_MINTER, else the current context."""
        from lamplighter.keys.minter import Minter  # noqa: PLC0415 - `--help` does without

        said = self._keys.minter or self.policy.neon.minter or os.environ.get(MINTER_VARIABLE, "").strip()
        return Minter.parse(said) if said else Minter("context", current_context())

    @cached_property
    def server(self) -> NeonKeys:
        """Neon, asked with the minter key."""
        from lamplighter.cli.reach import check  # noqa: PLC0415 - `--help` does without
        from lamplighter.keys.inventory import note_use  # noqa: PLC0415 - the same

        said = self.options.api_host or self.policy.neon.base_url or os.environ.get("NEON_API_HOST", "").strip()
        host = self.host or said or None
        found = self.minter.connect(host)
        check(found.base_url)
        # Rule K013 asks whether the minter was used by somebody else than us.
        note_use(self.state_dir, datetime.now(UTC))
        return found

    @cached_property
    def neon(self) -> Neon:
        """The SDK's client, with the minter key."""
        return self.server.neon

    def manager(self, hooks: Hooks | None = None) -> Manager:
        from lamplighter.keys.manager import Hooks, Manager  # noqa: PLC0415 - `--help` does without

        return Manager(
            server=self.server,
            journal=self.journal,
            policy=self.policy,
            minter=str(self.minter),
            minter_id=self.policy.neon.minter_id,
            last=self.minter.sink_address,
            hooks=hooks or Hooks(),
        )

    def confirm(self, what: Sequence[str]) -> None:
        """Show what will go, and ask. Raises Failure when the answer is no, or when nobody can be asked."""
        if self.yes:
            return
        if not self.dry_run and not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise Failure(
                f"this cannot be undone, and nobody can be asked: {'; '.join(what)}",
                hint="give --yes to do it without a question, or --dry-run to see what would happen",
                status=USAGE,
            )
        self.note(f"This cannot be undone{f', on {self.server.base_url}' if 'server' in self.__dict__ else ''}:")
        for line in what:
            self.note(f"  {line}")
        if not self.dry_run and not click.confirm("Go on?", err=True):
            raise Failure("nothing was done", status=FAILED)

    def close(self) -> None:
        if "server" in self.__dict__:
            self.server.close()

    @contextmanager
    def resumable(self) -> Iterator[None]:
        """For what may be interrupted: says then how it goes on."""
        try:
            yield
        except KeyboardInterrupt:
            self.note("Interrupted. Nothing is lost: `lamp keys recover` finishes or undoes it.")
            raise


def config_home() -> Path:
    said = os.environ.get("XDG_CONFIG_HOME", "")
    return Path(said) if said else Path("~/.config").expanduser()


def current_context() -> str:
    """The context that commands use when nothing else is said. NEON_API_KEY is passed over: see `minter`."""
    from lamplighter.cli.context import chosen_of  # noqa: PLC0415 - `--help` does without
    from lamplighter.client.contexts import ContextFile  # noqa: PLC0415 - the same

    name = os.environ.get("LAMP_CONTEXT", "").strip() or chosen_of(ContextFile().read())
    if name is None:
        why = " NEON_API_KEY is not used: every program that is run could read it." if _has_key() else ""
        raise errors.MinterUnfit(
            f"it is not said where the key is that mints.{why}",
            hint=f"give --minter, set {MINTER_VARIABLE} to a place such as keyring:neon/minter, or run `lamp login`",
        )
    return name


def _has_key() -> bool:
    return bool(os.environ.get("NEON_API_KEY", "").strip())


# The decorator


def keys_command(
    *, server: bool = True, changes: bool = False, destructive: bool = False, outputs: tuple[str, ...] = OUTPUTS
) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Adds the common options to a function, and passes it a `KeySession` first.

    `server` adds --minter and --api-host; what `changes` something has --dry-run, what is `destructive` --yes as well.
    """
    params = _options(server=server, changes=changes or destructive, destructive=destructive, outputs=outputs)
    names = [param.name for param in params if param.name is not None]

    def decorate(function: Callable[..., R]) -> Callable[..., R]:
        @functools.wraps(function)
        def command(**given: Any) -> R:
            common = {name: given.pop(name) for name in names}
            return _run(lambda session: function(session, **given), common)

        # click shows the options that were added last first: the command's own come before ours.
        own = getattr(function, "__click_params__", [])
        command.__click_params__ = [*reversed(params), *own]  # type: ignore[attr-defined] # as click's decorators do
        return command

    return decorate


def _run(function: Callable[[KeySession], R], common: dict[str, Any]) -> R:
    for name in _NOT_EMPTY:
        if common.get(name) == "":
            option = f"--{name.replace('_', '-')}"
            raise click.UsageError(f"{option} is empty: give a value, or leave the option out.")
    keys = KeyOptions(**{name: common.pop(name, None) for name in ("policy", "state_dir", "minter")})
    output: Any = common.pop("output")
    session = KeySession(Options(output=output, **common), keys)
    from lamplighter.keys.harden import hardened  # noqa: PLC0415 - `--help` does without

    try:
        # The minter key is held from its first use to the end.
        with hardened():
            return function(session)
    except errors.KeysError as error:
        # From None: of an error of ours the message is all there is to see.
        raise failure_of_keys(error) from None
    except Exception as error:
        failure = failure_of(error)
        if failure is None or failure is error:
            raise
        raise failure from error
    finally:
        session.close()


def _option(*names: str, **facts: Any) -> CommonOption:
    return CommonOption(names, **facts)


def _options(*, server: bool, changes: bool, destructive: bool, outputs: tuple[str, ...]) -> list[CommonOption]:
    default: Output = "table"
    params = [
        _option("--output", "-o", type=click.Choice(outputs), default=default, show_default=True, help="How to print."),
        _option(
            "--policy",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="The policy. [default: lamp-keys.toml here, else lamplighter/keys.toml in the configuration]",
        ),
        _option(
            "--state-dir",
            type=click.Path(file_okay=False, path_type=Path),
            help="Where the journal is. [default: lamplighter/keys in XDG_STATE_HOME]",
        ),
    ]
    if server:
        params += [
            _option(
                "--minter",
                metavar="PLACE",
                help="Where the key is that mints: keyring:SERVICE/NAME, vault:MOUNT/PATH#FIELD, fd:N, file:PATH, "
                f"context:NAME. [default: of the policy, {MINTER_VARIABLE}, the current context]",
            ),
            _option(
                "--api-host", metavar="URL", help="The server. [default: of the policy, NEON_API_HOST, Neon's cloud]"
            ),
        ]
    if destructive:
        params.append(_option("--yes", "-y", is_flag=True, help="Do not ask."))
    if changes:
        params.append(_option("--dry-run", is_flag=True, help="Show what would happen, and change nothing."))
    return params
