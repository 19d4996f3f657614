"""Groups of commands that help with a mistyped name."""

from __future__ import annotations

import click


class NearGroup(click.Group):
    """A group that suggests the nearest of its commands when there is none of that name."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        names = self.list_commands(ctx)
        if args and args[0] not in names and not args[0].startswith("-"):
            from difflib import get_close_matches  # noqa: PLC0415 - for a mistake only

            near = get_close_matches(args[0], names, n=1, cutoff=0.5)
            ctx.fail(f"No such command {args[0]!r}." + (f" Did you mean {near[0]!r}?" if near else ""))
        return super().resolve_command(ctx, args)
