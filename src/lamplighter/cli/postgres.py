"""`lamp postgres`: the versions that are there, and those that can be."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from lamplighter.cli.errors import NOT_THERE, Failure
from lamplighter.cli.groups import NearGroup
from lamplighter.cli.options import output_option
from lamplighter.cli.text import table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lamplighter.compute.binaries import Availability, Binaries
    from lamplighter.compute.extensions import Extension
    from lamplighter.compute.providers.build import Build

#: As `lamplighter.compute.binaries` has it, which `--help` must not import; a test compares them.
MAJORS = (14, 15, 16, 17, 18)
_MAJOR = click.IntRange(MAJORS[0], MAJORS[-1])


@click.group(cls=NearGroup)
def postgres() -> None:
    """List, install and remove PostgreSQL versions.

    A major that a project asks for is fetched by itself; this is for doing it beforehand, or again for a newer minor.
    Programs are kept in LAMP_CACHE_DIR (default: /var/cache/lamplighter for root, else ~/.cache/lamplighter).

    \b
    Examples:
      lamp postgres list
      lamp postgres install 16 17
    """  # noqa: D301 - click wants the character itself


@postgres.command("list")
@output_option
def list_(output: str) -> None:
    """List all majors, which of them are installed, and where."""
    available = _binaries().available()
    if output == "json":
        import json  # noqa: PLC0415 - for JSON only

        click.echo(json.dumps([described(one) for one in available], indent=2))
    else:
        click.echo(listed(available))


@postgres.command()
@click.argument("majors", metavar="MAJOR...", type=_MAJOR, nargs=-1, required=True)
def install(majors: tuple[int, ...]) -> None:
    """Fetch the newest minor of each MAJOR (14 to 18), even if one is installed.

    Running computes keep the one they were started with; they get the new one at their next start.

    \b
    Examples:
      lamp postgres install 17
    """  # noqa: D301 - click wants the character itself
    from lamplighter.cli.progress import Progress  # noqa: PLC0415 - `--help` does without
    from lamplighter.compute.errors import CacheUnreadable  # noqa: PLC0415 - the same
    from lamplighter.compute.extensions import extensions  # noqa: PLC0415 - the same

    with Progress() as progress:
        for major in dict.fromkeys(majors):
            try:
                build = _binaries(progress).install(major)
            except PermissionError as error:
                raise Failure(f"the cache of PostgreSQL versions cannot be written: {error}") from error
            except CacheUnreadable as error:
                raise Failure(str(error)) from error
            progress.clear()
            click.echo(installed(build))
            for line in lacking(extensions(build)):
                click.echo(line)


@postgres.command()
@click.argument("major", type=_MAJOR)
def remove(major: int) -> None:
    """Delete what was fetched of MAJOR.

    Projects of this major stay, and fetch it again at the next start of one of their computes. The system's own
    programs are never touched.

    Exit status: 0 removed, 1 a compute uses it, 3 it is not installed.

    \b
    Examples:
      lamp postgres remove 14
    """  # noqa: D301 - click wants the character itself
    from lamplighter.compute.binaries import default_cache  # noqa: PLC0415 - `--help` does without
    from lamplighter.platform.builds import users_of  # noqa: PLC0415 - the same
    from lamplighter.platform.errors import BuildInUse  # noqa: PLC0415 - the same

    if users := users_of((default_cache() / "builds").glob(f"{major}-*")):
        raise BuildInUse(major, users)
    if not _binaries().remove(major):
        raise Failure(f"PostgreSQL {major} is not installed in {default_cache()}", status=NOT_THERE)
    click.echo(f"PostgreSQL {major} is removed.")


def _binaries(progress: object = None) -> Binaries:
    from lamplighter.compute.binaries import Binaries, default_cache  # noqa: PLC0415 - `--help` does without

    return Binaries(default_cache(), progress=progress if callable(progress) else None)


def described(one: Availability) -> dict[str, object]:
    """For programs: one major. Pure."""
    build = one.build
    return {
        "major": one.major,
        "state": one.state,
        "how": one.how,
        "version": build.version if build else None,
        "provider": build.provider if build else None,
        "bin_dir": str(build.bin_dir) if build else None,
        "openssl": build.has_openssl if build else None,
    }


def listed(available: Sequence[Availability]) -> str:
    """For people: a line for each major. Pure."""
    rows = [(str(one.major), one.state, one.how, str(one.build.bin_dir) if one.build else "") for one in available]
    return "\n".join(table(("MAJOR", "STATE", "HOW", "WHERE"), rows))


def installed(build: Build) -> str:
    """What an installation has brought. Pure."""
    lacks = "" if build.has_openssl else ", without TLS"
    return f"PostgreSQL {build.major}: {build.version} from {build.provider} in {build.bin_dir}{lacks}"


def lacking(found: Sequence[Extension]) -> list[str]:
    """A line for each extension that users cannot create. Pure."""
    return [f"  no {one.name}: {one.why}" for one in found if not one.available]
