"""Groups of commands that help with a mistyped name, and commands that list their common options apart."""

from __future__ import annotations

import click


class CommonOption(click.Option):
    """An option that all commands of a kind have."""


class Command(click.Command):
    """A command whose own options are listed before those that all have."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        own: list[tuple[str, str]] = []
        common: list[tuple[str, str]] = []
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                (common if isinstance(param, CommonOption) else own).append(record)
        for title, records in (("Options", own), ("Common options", common)):
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


class NearGroup(click.Group):
    """A group that suggests the nearest of its commands when there is none of that name."""

    command_class = Command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        names = self.list_commands(ctx)
        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            from difflib import get_close_matches  # noqa: PLC0415 - for a mistake only

            near = get_close_matches(args[0], names, n=1, cutoff=0.5)
            ctx.fail(f"No such command {args[0]!r}." + (f" Did you mean {near[0]!r}?" if near else ""))
        return super().resolve_command(ctx, args)


NearGroup.group_class = NearGroup
