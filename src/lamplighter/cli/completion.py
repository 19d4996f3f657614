"""`lamp completion`: the script that makes a shell complete commands, options and their values."""

from __future__ import annotations

import click

from lamplighter.cli.groups import Command
from lamplighter.cli.output import write

SHELLS = ("bash", "zsh", "fish")

#: What to do with the script, by shell.
_INSTALL = {
    "bash": "echo 'eval \"$(lamp completion bash)\"' >> ~/.bashrc",
    "zsh": "echo 'eval \"$(lamp completion zsh)\"' >> ~/.zshrc",
    "fish": "lamp completion fish > ~/.config/fish/completions/lamp.fish",
}


@click.command(cls=Command)
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print what makes a shell complete `lamp`.

    On a terminal it says on standard error how to install it.

    \b
    Examples:
      echo 'eval "$(lamp completion bash)"' >> ~/.bashrc
      echo 'eval "$(lamp completion zsh)"' >> ~/.zshrc
      lamp completion fish > ~/.config/fish/completions/lamp.fish
    """  # noqa: D301 - click wants the character itself
    import sys  # noqa: PLC0415 - `--help` does without

    write(script(shell))
    if sys.stdout.isatty():
        click.echo(f"To install it: {_INSTALL[shell]}", err=True)


def script(shell: str) -> str:
    """The script that click's own completion needs."""
    from click.shell_completion import get_completion_class  # noqa: PLC0415 - `--help` does without

    from lamplighter.cli.commands import lamp  # noqa: PLC0415 - it imports this module in turn

    kind = get_completion_class(shell)
    assert kind is not None
    return kind(lamp, {}, "lamp", "_LAMP_COMPLETE").source() + "\n"
