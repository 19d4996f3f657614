"""`lamp api`: any operation of the API, by its id or by its path."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any

import click

from lamplighter.cli.errors import USAGE, Failure
from lamplighter.cli.groups import Command
from lamplighter.cli.session import api_command

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lamplighter.api.operations import Operation
    from lamplighter.cli.session import Session

_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
#: What the common options can fill in, when it is not the very thing that is changed.
_KNOWN = ("project_id", "org_id", "branch_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What the command line says of a call."""

    method: str | None = None
    params: tuple[str, ...] = ()
    query: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()
    raw_fields: tuple[str, ...] = ()
    data: str | None = None
    input: IO[bytes] | None = None

    @property
    def has_body(self) -> bool:
        return bool(self.fields or self.raw_fields or self.data is not None or self.input is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What is sent. `operation` is None where the contract knows no such path."""

    method: str
    path: str
    query: dict[str, list[str]] = field(default_factory=dict)
    body: Any = None
    operation: Operation | None = None


@click.command(cls=Command)
@click.argument("target", metavar="[OPERATION|PATH]", required=False)
@click.option("--list", "list_", is_flag=True, help="List the operations; with a word, those that have it.")
@click.option("--describe", is_flag=True, help="Show the parameters and fields of the operation, and call nothing.")
@click.option(
    "--method",
    "-X",
    type=click.Choice(_METHODS, case_sensitive=False),
    help="For a PATH. [default: GET; POST with a body]",
)
@click.option("--param", "-p", "params", multiple=True, metavar="NAME=VALUE", help="Fill in a {name} of the path.")
@click.option("--query", "-Q", multiple=True, metavar="NAME=VALUE", help="A parameter of the query.")
@click.option(
    "--field",
    "-F",
    "fields",
    multiple=True,
    metavar="A.B=VALUE",
    help="A field of the body, of the type that the contract says; with := in the place of = the value is JSON.",
)
@click.option("--raw-field", "-f", "raw_fields", multiple=True, metavar="A.B=TEXT", help="The same, always as a text.")
@click.option("--data", "-d", metavar="JSON|@FILE|-", help="The whole body.")
@click.option("--input", "input_", type=click.File("rb"), metavar="FILE|-", help="The whole body, from a file.")
@click.option("--include", "-i", is_flag=True, help="Print the status and the headers of the answer first.")
@click.option("--paginate", is_flag=True, help="Follow the pages of a list, and print it whole.")
@api_command(branch=True, changes=True, output="json")
def api(
    session: Session, *, target: str | None, list_: bool, describe: bool, include: bool, paginate: bool, **given: Any
) -> None:
    """Call any operation of the API.

    By the id that Neon gives it (createProjectBranch), by its name in the SDK (branches.create), or by its path. The
    answer's JSON is printed as it came, indented on a terminal. Secrets in it are not hidden.

    \b
    Examples:
      lamp api --list branch
      lamp api createProjectBranch --describe
      lamp api listProjectBranches --project-id calm-sun-12345678 -Q limit=5
      lamp api createProjectBranch -F branch.name=dev -F endpoints.0.type=read_write
      lamp api /projects/calm-sun-12345678 -X PATCH -F project.name=shop
      lamp api getProjectBranch -p branch_id=br-calm-sun-12345678
    """  # noqa: D301 - click wants the character itself
    if list_:
        _list(session, target or "")
        return
    if target is None:
        raise click.UsageError("Name an operation or a path, or give --list.")
    given["input"] = given.pop("input_")
    said = Given(**given)
    if describe:
        _describe(session, target, said)
        return
    from lamplighter.cli.bodies import BadField  # noqa: PLC0415 - `--help` does without

    try:
        call = planned(session, target, said)
    except BadField as error:
        raise click.UsageError(str(error)) from error
    from lamplighter.cli.answers import follow, show  # noqa: PLC0415 - the same

    if paginate:
        follow(session, call)
        return
    answer = session.neon.request(call.method, call.path, query=call.query, body=call.body)
    show(session, answer, include=include)


# What is sent


def planned(session: Session, target: str, given: Given) -> Call:
    """The call that is meant. Raises Failure and BadField."""
    from lamplighter.cli.bodies import parse_pair  # noqa: PLC0415 - `--help` does without

    path, _, said_query = target.partition("?")
    operation = operation_of(path, given)
    template = operation.path if operation is not None and "/" not in path else with_slash(path)
    method = operation.method if operation is not None else _method(given)
    query: dict[str, list[str]] = {}
    for written in (*filter(None, said_query.split("&")), *given.query):
        name, value = parse_pair(written)
        query.setdefault(name, []).append(value)
    filled = filled_in(session, template, dict(map(parse_pair, given.params)), method=method)
    return Call(method=method, path=filled, query=query, body=body_of(given, operation), operation=operation)


def with_slash(path: str) -> str:
    """A path relative to the API's base, in whichever of its forms it was written. Pure."""
    if "://" in path:
        raise Failure("give the path alone", hint="--api-host names the server", status=USAGE)
    return "/" + path.strip("/").removeprefix("api/v2/")


def operation_of(target: str, given: Given) -> Operation | None:
    """The operation of an id, a name or a path; None for a path that the contract does not know. Raises Failure."""
    from lamplighter.cli import catalogue  # noqa: PLC0415 - the table of operations, and every model with it

    if "/" in target:
        path, method = with_slash(target), _method(given)
        found = catalogue.by_path(method, path)
        if found is None and given.method is None and (methods := catalogue.methods_at(path)):
            raise Failure(f"there is no {method} at {path}", hint=f"give --method {' or '.join(methods)}", status=USAGE)
        return found
    found = catalogue.by_name(target)
    if found is None:
        near = catalogue.near(target)
        hint = f"did you mean {' or '.join(near)}?" if near else "`lamp api --list` shows them; a path has a slash"
        raise Failure(f"there is no operation {target!r}", hint=hint, status=USAGE)
    if given.method not in (None, found.method):
        raise Failure(f"{found.id} is a {found.method}", hint="leave out --method", status=USAGE)
    return found


def _method(given: Given) -> str:
    return given.method or ("POST" if given.has_body else "GET")


def filled_in(session: Session, template: str, params: Mapping[str, str], *, method: str) -> str:
    """The path with its places filled: by --param, else by what the common options say. Raises Failure."""
    from lamplighter.cli.catalogue import places_of  # noqa: PLC0415 - it is loaded
    from lamplighter.client.spec import segment  # noqa: PLC0415 - the same

    places = places_of(template)
    if unknown := [name for name in params if name not in places]:
        raise Failure(f"{template} has no {{{unknown[0]}}}", hint="use --query for the query", status=USAGE)
    path = template
    for name in places:
        value = params.get(name)
        if value is None:
            # What a change is made to must be named: the only project there is, or the default branch, is not.
            value = _known(session, name, named=name == places[-1] and is_changed(method, template, name))
        if value is None:
            raise Failure(f"{template} needs {name}", hint=f"give --param {name}=VALUE", status=USAGE)
        try:
            path = path.replace(f"{{{name}}}", segment(name, value))
        except ValueError as error:
            raise Failure(str(error), status=USAGE) from error
    return path


def is_changed(method: str, template: str, last: str) -> bool:
    """Whether a call changes what `last` names, the last place of its path, and does not only add to it. Pure."""
    if method != "POST":
        return method != "GET"
    # What can be listed is added to; any other POST to a branch, as to restore it, is for the branch itself.
    from lamplighter.cli.catalogue import methods_at  # noqa: PLC0415 - it is loaded

    return last == "branch_id" and "GET" not in methods_at(template)


def _known(session: Session, name: str, *, named: bool) -> str | None:
    options = session.options
    match name:
        case "project_id":
            return options.project_id if named else session.project_id()
        case "org_id":
            return options.org_id if named else session.org_id()
        case "branch_id" if options.branch or not named:
            return session.branch(options.branch).id
    return None


def body_of(given: Given, operation: Operation | None) -> Any:
    """The body's JSON value; None for no body. Raises Failure and BadField."""
    if not given.has_body:
        return None
    whole = [
        source for source in (given.data, given.input, given.fields or given.raw_fields) if source not in (None, ())
    ]
    if len(whole) > 1:
        raise Failure("give the body once: by --field, by --data or by --input", status=USAGE)
    if operation is not None and operation.body is None:
        raise Failure(f"{operation.id} takes no body", hint="use --query for the query", status=USAGE)
    if operation is not None and operation.body_media != "application/json":
        group = operation.path.rpartition("/")[2]
        raise Failure(f"{operation.id} takes files, not JSON", hint=f"use the SDK for {group}", status=USAGE)
    if given.fields or given.raw_fields:
        return _of_fields(given, operation)
    return _read_json(_whole_body(given))


def _of_fields(given: Given, operation: Operation | None) -> Any:
    from lamplighter.cli.bodies import build_body, parse_field  # noqa: PLC0415 - for fields only
    from lamplighter.cli.catalogue import body_types  # noqa: PLC0415 - it is loaded

    fields = [parse_field(written) for written in given.fields]
    fields += [parse_field(written, kind="text") for written in given.raw_fields]
    return build_body(fields, types=body_types(operation) if operation is not None else {})


def _whole_body(given: Given) -> bytes:
    if given.input is not None:
        return given.input.read()
    assert given.data is not None
    if given.data == "-":
        return sys.stdin.buffer.read()
    if given.data.startswith("@"):
        from pathlib import Path  # noqa: PLC0415 - for a file only

        return Path(given.data[1:]).read_bytes()
    return given.data.encode()


def _read_json(content: bytes) -> Any:
    import json  # noqa: PLC0415 - for a whole body only

    try:
        return json.loads(content)
    except ValueError as error:
        raise Failure(f"the body is no JSON: {error}", status=USAGE) from None


# The table


def _list(session: Session, word: str) -> None:
    from lamplighter.cli.catalogue import listed  # noqa: PLC0415 - `--help` does without
    from lamplighter.cli.output import Column, emit  # noqa: PLC0415 - the same

    columns = [
        Column("id"),
        Column("method"),
        Column("path", whole=True),
        Column("name", "In the SDK"),
        Column("served", "Lamplighter"),
    ]
    emit(_as_table(session), listed(word), columns, empty=f"No operation has {word!r}.")


def _describe(session: Session, target: str, given: Given) -> None:
    from lamplighter.cli.catalogue import described  # noqa: PLC0415 - `--help` does without
    from lamplighter.cli.describing import description_text  # noqa: PLC0415 - the same
    from lamplighter.cli.output import json_text, write, yaml_text  # noqa: PLC0415 - the same

    operations: Sequence[Operation]
    if "/" in target and given.method is None and not given.has_body:
        operations = _all_at(with_slash(target.partition("?")[0]))
    else:
        found = operation_of(target.partition("?")[0], given)
        operations = [found] if found is not None else []
    if not operations:
        raise Failure(f"the contract knows no {target}", hint="`lamp api --list` shows what it knows", status=USAGE)
    facts = [described(operation) for operation in operations]
    shown = facts[0] if len(facts) == 1 else facts
    match _as_table(session).output:
        case "json":
            write(json_text(shown))
        case "yaml":
            write(yaml_text(shown))
        case _:
            write("\n".join(map(description_text, facts)))


def _all_at(path: str) -> list[Operation]:
    from lamplighter.cli import catalogue  # noqa: PLC0415 - it is loaded

    found = (catalogue.by_path(method, path) for method in _METHODS)
    return [operation for operation in found if operation is not None]


def _as_table(session: Session) -> Session:
    """What we say of the API is for people unless --output was given: only answers are JSON by themselves."""
    source = click.get_current_context().get_parameter_source("output")
    if source is not click.core.ParameterSource.COMMANDLINE:
        session.output = "table"
    return session
