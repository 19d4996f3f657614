"""The platform's settings as a command sees them: its options, else the environment."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from lamplighter.platform.settings import Settings

#: Settings whose value may hold a password.
_SECRET = frozenset({"catalog_url"})
_JSON = {"endpoint_ports": "[20000, 29999]", "compute_ports": "[30000, 32767]"}


def given(**options: Any) -> dict[str, Any]:
    """The options that were given, for settings that fill in the others."""
    return {name: value for name, value in options.items() if value is not None}


def data_dir_of(named: Path | None) -> Path:
    """The data directory alone: a wrong setting of another kind must not keep a command from working."""
    from lamplighter.platform.settings import default_data_dir  # noqa: PLC0415 - `--help` does without

    chosen = named or Path(os.environ.get("LAMP_DATA_DIR") or default_data_dir())
    return chosen.expanduser().absolute()


def read_settings(**options: Any) -> Settings:
    """Settings of the options that are not None and of the environment. Raises click.UsageError."""
    from pydantic import ValidationError  # noqa: PLC0415 - `--help` does without
    from pydantic_settings import SettingsError  # noqa: PLC0415 - the same

    from lamplighter.platform.settings import Settings  # noqa: PLC0415 - the same

    chosen = given(**options)
    try:
        return Settings(**chosen)
    except ValidationError as error:
        fault = error.errors()[0]
        if not fault["loc"]:
            # Of two settings that do not go together.
            raise click.UsageError(fault["msg"].removeprefix("Value error, ")) from error
        # A list's fault may lie in one of its elements.
        complaint = complain(str(fault["loc"][0]), fault["msg"], options=chosen, environ=os.environ)
        raise click.UsageError(complaint) from error
    except SettingsError as error:
        # Only a value that is to be JSON gets here, and only the field's name is told, in quotes.
        field = (re.findall(r'"(\w+)"', str(error)) or ["a setting"])[0]
        complaint = complain(field, f"write it as JSON: {_JSON.get(field, '')}", options=chosen, environ=os.environ)
        raise click.UsageError(complaint) from error


def complain(field: str, message: str, *, options: Mapping[str, Any], environ: Mapping[str, str]) -> str:
    """What is wrong with a setting, and where it was set. Pure."""
    said = message.removeprefix("Value error, ").removeprefix("Input should be ")
    if said != message and message.startswith("Input"):
        said = f"it should be {said}"
    if field in options:
        return f"--{field.replace('_', '-')}: {said}"
    variable = next((name for name in environ if name.upper() == f"LAMP_{field.upper()}"), f"LAMP_{field.upper()}")
    value = "" if field in _SECRET or variable not in environ else f"={environ[variable]}"
    return f"{variable}{value}: {said}"
