"""How commands that talk to a server show what it answered: a table for people, JSON, YAML or CSV for programs.

Rendering is pure; `emit` prints. Names of fields are the API's own. Secrets are shown as `***` unless a command
is asked for them.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from lamplighter.cli.harmless import clean, escape_json, is_harmless
from lamplighter.cli.terminal import cut, pad, width
from lamplighter.cli.text import NOTHING

if TYPE_CHECKING:
    from lamplighter.api.models.base import Model
    from lamplighter.cli.session import Session

Output = Literal["table", "json", "yaml", "csv"]
OUTPUTS: tuple[Output, ...] = ("table", "json", "yaml", "csv")

SHOWN = "***"
#: Fields whose whole value is a secret, and those that are connection strings, which hold one.
_SECRETS = frozenset(
    {"password", "key", "api_key", "api_token", "client_secret", "s3_secret_access_key", "secret_server_key"}
)
_URIS = frozenset({"connection_uri", "uri", "connection_string"})

_GAP = "  "
#: Below this a column is no longer worth reading.
_LEAST = 6


@dataclass(frozen=True, slots=True)
class Column:
    """One field of what is shown. `field` is a dotted path into the JSON of the model; a number is an index.

    `show` makes the text of a table's cell from the JSON value; CSV has the value itself. Columns that are `whole` are
    the last to be cut when a terminal is too narrow: ids are, else nobody could use them.
    """

    field: str
    header: str = ""
    right: bool = False
    show: Callable[[Any], str] | None = None
    whole: bool | None = None

    @property
    def title(self) -> str:
        return self.header or self.field.replace("_", " ").replace(".", " ")

    @property
    def kept(self) -> bool:
        last = self.field.rpartition(".")[2]
        return self.whole if self.whole is not None else last == "id" or last.endswith("_id")


@dataclass(frozen=True, slots=True)
class Screen:
    """Where text goes: `columns` is None when it is no terminal, and nothing is cut then."""

    columns: int | None = None
    colour: bool = False


def emit(
    session: Session,
    value: Model | Mapping[str, Any] | Sequence[Any],
    columns: Sequence[Column],
    *,
    empty: str = "nothing",
    secrets: bool = False,
) -> None:
    """Print one object, or several. `empty` is said of no objects, on standard error and for people only.

    `secrets=True` is for commands that are asked for a secret: it is then printed as it is.
    """
    plain = plain_of(value)
    plain = plain if secrets else redact(plain)
    if plain == [] and session.output == "table":
        session.note(empty)
        return
    write(rendered(plain, columns, output=session.output, screen=screen_of(sys.stdout)))


def write(text: str) -> None:
    """Text to standard output as it is: line ends are not changed, and what it cannot show is written as an escape."""
    sys.stdout.write(text)
    sys.stdout.flush()


def screen_of(stream: Any) -> Screen:
    """What is known of the terminal behind a stream."""
    if not stream.isatty():
        return Screen()
    dumb = os.environ.get("TERM") == "dumb" or bool(os.environ.get("NO_COLOR"))
    return Screen(columns=shutil.get_terminal_size().columns, colour=not dumb)


def plain_of(value: Any) -> Any:
    """Models and what holds them as JSON values: mappings, lists, strings, numbers, booleans, None.

    Of a model only what the server sent is there, under the API's own names.
    """
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json", by_alias=True, exclude_unset=True)
    if isinstance(value, Mapping):
        return {str(name): plain_of(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_of(each) for each in value]
    if value is None or isinstance(value, (str, int, float)):
        return value
    import pydantic_core  # noqa: PLC0415 - dates and the like, which come from models: it is loaded

    return pydantic_core.to_jsonable_python(value)


def redact(value: Any) -> Any:
    """A JSON value without secrets."""
    if isinstance(value, Mapping):
        return {name: _hidden(name, each) for name, each in value.items()}
    if isinstance(value, list):
        return [redact(each) for each in value]
    return value


def _hidden(name: str, value: Any) -> Any:
    if not isinstance(value, str) or not value:
        return redact(value)
    if name in _SECRETS:
        return SHOWN
    return without_password(value) if name in _URIS else value


def without_password(uri: str) -> str:
    """A connection string with `***` for its password; what cannot be read is `***` as a whole."""
    head, found, rest = uri.partition("://")
    login, at, place = rest.rpartition("@")
    if not found or "password=" in rest.lower():
        return SHOWN
    if not at:
        return uri
    user, colon, _ = login.partition(":")
    return f"{head}://{user}:{SHOWN}@{place}" if colon else uri


# Rendering: pure from here on


def rendered(plain: Any, columns: Sequence[Column], *, output: Output, screen: Screen) -> str:
    """The text of a JSON value, with a line end. Nothing that a terminal would obey is in what a terminal gets."""
    match output:
        case "json":
            return json_text(plain)
        case "yaml":
            return yaml_text(plain)
        case "csv":
            return csv_text(plain if isinstance(plain, list) else [plain], columns, screen=screen)
        case "table" if isinstance(plain, list):
            return table_text(plain, columns, screen=screen)
        case "table":
            return fields_text(plain, columns, screen=screen)


def json_text(plain: Any) -> str:
    """JSON with two blanks of indent."""
    import json  # noqa: PLC0415 - for JSON only

    return escape_json(json.dumps(plain, indent=2, ensure_ascii=False)) + "\n"


def yaml_text(plain: Any) -> str:
    """YAML that reads back as the same value."""
    import yaml  # noqa: PLC0415 - some 30 ms, for YAML only

    text: str = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=1000)
    # YAML lets through what a terminal would obey; as ASCII all of it is escaped.
    return text if is_harmless(text) else yaml.safe_dump(plain, sort_keys=False, allow_unicode=False, width=1000)


def csv_text(rows: Sequence[Any], columns: Sequence[Column], *, screen: Screen) -> str:
    """CSV as RFC 4180 has it. The first line has the columns' fields. A terminal gets no control characters."""
    import csv  # noqa: PLC0415 - for CSV only
    import io  # noqa: PLC0415 - the same

    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow([column.field for column in columns])
    for row in rows:
        cells = [_value_text(at(row, column.field)) for column in columns]
        writer.writerow(cells if screen.columns is None else map(clean, cells))
    return text.getvalue()


def table_text(rows: Sequence[Any], columns: Sequence[Column], *, screen: Screen) -> str:
    """A line of titles, and a line for each row; no line is wider than the screen, and none ends in blanks."""
    header = [clean(column.title).upper() for column in columns]
    body = [[cell(row, column) for column in columns] for row in rows]
    natural = [max(map(width, texts)) for texts in zip(header, *body, strict=True)]
    widths = fitted(natural, keep=[column.kept for column in columns], columns=screen.columns)
    lines = []
    for texts in (header, *body):
        cells = [
            pad(cut(text, most), most, right=column.right)
            for text, most, column in zip(texts, widths, columns, strict=True)
        ]
        line = _GAP.join(cells).rstrip()
        lines.append(line if screen.columns is None else cut(line, screen.columns))
    if screen.colour:
        lines[0] = f"\x1b[1m{lines[0]}\x1b[0m"
    return "".join(f"{line}\n" for line in lines)


def fields_text(plain: Any, columns: Sequence[Column], *, screen: Screen) -> str:
    """A line for each column with its title and value; values are never cut, so that they can be copied."""
    titles = [clean(column.title) for column in columns]
    widest = max(map(width, titles), default=0)
    lines = []
    for title, column in zip(titles, columns, strict=True):
        shown = pad(title, widest)
        shown = f"\x1b[1m{shown}\x1b[0m" if screen.colour else shown
        lines.append(f"{shown}{_GAP}{cell(plain, column)}\n")
    return "".join(lines)


def fitted(natural: Sequence[int], *, keep: Sequence[bool], columns: int | None) -> list[int]:
    """Widths that together with their gaps fit into so many columns, taken from the widest first.

    Columns to keep give nothing while others have more than the least. What cannot be fitted is left too wide.
    """
    widths = list(natural)
    if columns is None:
        return widths
    over = sum(widths) + len(_GAP) * (len(widths) - 1) - columns
    for kept in (False, True):
        order = [place for place, keeps in enumerate(keep) if keeps == kept]
        while over > 0 and (wide := [place for place in order if widths[place] > _LEAST]):
            place = max(wide, key=widths.__getitem__)
            second = max((widths[other] for other in wide if other != place), default=_LEAST)
            taken = max(1, min(over, widths[place] - max(second, _LEAST)))
            widths[place] -= taken
            over -= taken
    return widths


def cell(row: Any, column: Column) -> str:
    """The text of a table's cell: one line, harmless; `-` for what is not there."""
    value = at(row, column.field)
    if column.show is not None:
        return clean(column.show(value))
    if value is None or value in ("", [], {}):
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    return clean(_value_text(value))


def at(plain: Any, path: str) -> Any:
    """What lies at a dotted path of a JSON value; None when there is nothing."""
    for name in path.split(".") if path else ():
        if isinstance(plain, Mapping):
            plain = plain.get(name)
        elif isinstance(plain, list) and name.isdecimal() and int(name) < len(plain):
            plain = plain[int(name)]
        else:
            return None
    return plain


def _value_text(value: Any) -> str:
    """A JSON value for programs: strings as they are, nothing for null, JSON for what has parts."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return ", ".join(value)
    import json  # noqa: PLC0415 - numbers, booleans and parts only

    return json.dumps(value, ensure_ascii=False)


def columns_of(rows: Iterable[Any]) -> list[Column]:
    """A column for every field that any of the objects has, in the order in which they appear."""
    names = dict.fromkeys(name for row in rows if isinstance(row, Mapping) for name in row)
    return [Column(name) for name in names]
