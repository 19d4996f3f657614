"""`lamp storage`: a copy-on-write pool on a host whose file system has no copy-on-write."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from lamplighter.cli.errors import Failure
from lamplighter.cli.groups import NearGroup
from lamplighter.cli.options import data_dir_option, output_option
from lamplighter.cli.settings import data_dir_of
from lamplighter.cli.sizes import Size
from lamplighter.cli.text import fields, human_bytes, plural

if TYPE_CHECKING:
    from lamplighter.platform.inspect import StorageFacts
    from lamplighter.storage.pool import Pool, PoolStatus


@click.group(cls=NearGroup)
def storage() -> None:
    """Make a copy-on-write pool, and show it.

    Branches are instant where the file system can share blocks (btrfs, XFS), and by overlay mounts elsewhere. A pool is
    such a file system in one sparse file of the data directory. `lamp up` mounts it; /etc/fstab is left alone.

    \b
    Examples:
      sudo lamp storage init --size 50G
      lamp storage status
    """  # noqa: D301 - click wants the character itself


@storage.command()
@click.option(
    "--size", type=Size(), required=True, help="What it may grow to, such as 50G: the file takes what is used."
)
@click.option(
    "--fs",
    type=click.Choice(["xfs", "btrfs"]),
    default="xfs",
    show_default=True,
    help="btrfs makes branches fastest, XFS writes faster.",
)
@data_dir_option
def init(size: int, fs: Literal["xfs", "btrfs"], data_dir: Path | None) -> None:
    """Make a pool for the branches of a data directory that has none yet (root only).

    \b
    Examples:
      sudo lamp storage init --size 50G
      sudo lamp storage init --size 512M --fs btrfs --data-dir /srv/neon
    """  # noqa: D301 - click wants the character itself
    import os  # noqa: PLC0415 - `--help` does without

    from lamplighter.cli.progress import Progress  # noqa: PLC0415 - the same
    from lamplighter.platform.state import sole_platform  # noqa: PLC0415 - the same
    from lamplighter.storage.pool import init_pool  # noqa: PLC0415 - the same

    if os.geteuid() != 0:
        raise Failure("only root can make a pool", hint="run it with sudo, and `lamp up` too")
    place = data_dir_of(data_dir)
    place.mkdir(mode=0o755, parents=True, exist_ok=True)
    # A platform that started meanwhile would put its volumes beside the pool.
    with sole_platform(place), Progress() as progress:
        progress(f"Making a pool of {human_bytes(size)} ({fs})")
        pool = init_pool(place / "storage", size, fs)
        free = free_of_host(place)
    click.echo(made(pool, free_bytes=free))


@storage.command()
@data_dir_option
@output_option
def status(data_dir: Path | None, output: str) -> None:
    """Show where the branches of a data directory lie: driver, file system, pool, space."""
    from lamplighter.platform.inspect import read_storage  # noqa: PLC0415 - `--help` does without
    from lamplighter.storage.pool import pool_status  # noqa: PLC0415 - the same

    place = data_dir_of(data_dir)
    facts = read_storage(place)
    pool = None if facts.pool is None else pool_status(place / "storage")
    if output == "json":
        import json  # noqa: PLC0415 - for JSON only
        from dataclasses import asdict  # noqa: PLC0415 - the same

        file_bytes = None if pool is None else pool.image_bytes
        used = None if pool is None else pool.used_bytes
        click.echo(json.dumps(asdict(facts) | {"pool_file_bytes": file_bytes, "pool_used_bytes": used}, indent=2))
    else:
        click.echo(shown(facts, pool, place))


def free_of_host(place: Path) -> int:
    """Bytes that are free where the pool's file lies."""
    from lamplighter.storage.linux import free_bytes  # noqa: PLC0415 - `--help` does without

    return free_bytes(place)[0]


def made(pool: Pool, *, free_bytes: int) -> str:
    """What was made, and a warning when the host cannot hold all of it. Pure."""
    lines = [f"Made a pool of {human_bytes(pool.size_bytes)} ({pool.fs}) in {pool.image}.", "`lamp up` uses it."]
    if pool.size_bytes > free_bytes:
        lines.append(f"Only {human_bytes(free_bytes)} are free for it now: it cannot fill before the disk does.")
    return "\n".join(lines)


def shown(facts: StorageFacts, pool: PoolStatus | None, place: Path) -> str:
    """The storage for people. Pure."""
    if facts.why:
        return f"The storage in {place} cannot be read: {facts.why}."
    if facts.filesystem is None:
        return f"There is nothing in {place} yet. `lamp storage init --size 50G` makes a pool, `lamp up` uses it."
    free, total = human_bytes(facts.free_bytes), human_bytes(facts.total_bytes)
    pairs = [
        ("Data", str(place)),
        ("Driver", facts.driver or "not chosen yet"),
        ("Files", f"{facts.filesystem}, {free} free of {total}, {human_bytes(facts.reserve_bytes)} in reserve"),
    ]
    if pool is None:
        pairs.append(("Pool", "none"))
    else:
        used = "not mounted" if pool.used_bytes is None else f"{human_bytes(pool.used_bytes)} used inside"
        taken = f"{human_bytes(pool.image_bytes)} taken by its file"
        pairs.append(("Pool", f"{human_bytes(pool.pool.size_bytes)} ({pool.pool.fs}), {used}, {taken}"))
    pairs.append(("Volumes", "not for you to see" if facts.volumes is None else plural(len(facts.volumes), "volume")))
    return "\n".join(fields(pairs))
