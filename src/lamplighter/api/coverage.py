"""The README's table of what is served, made from the operation table: `python -m lamplighter.api.coverage`."""

from __future__ import annotations

from collections.abc import Iterable

from lamplighter.api.operations import OPERATIONS, Operation

BEGIN = "<!-- coverage: made by `python -m lamplighter.api.coverage`, checked by a test -->"
END = "<!-- /coverage -->"


def names(operations: Iterable[Operation]) -> str:
    """Operation ids as Markdown, or the word none."""
    return ", ".join(f"`{operation.id}`" for operation in operations) or "none"


def table() -> str:
    """Markdown: a row a group of the API, between the two markers."""
    groups: dict[str, list[Operation]] = {}
    for operation in OPERATIONS.values():
        groups.setdefault(operation.tag, []).append(operation)
    served = sum(operation.served for operation in OPERATIONS.values())
    lines = [
        BEGIN,
        f"{served} of {len(OPERATIONS)} operations are served; the others answer 501.",
        "",
        "| group | served | answers 501 |",
        "|---|---|---|",
    ]
    for tag, operations in groups.items():
        yes = [operation for operation in operations if operation.served]
        no = [operation for operation in operations if not operation.served]
        lines.append(f"| {tag} ({len(yes)}/{len(operations)}) | {names(yes)} | {names(no)} |")
    return "\n".join([*lines, END])


if __name__ == "__main__":
    print(table())  # noqa: T201 - it is a command
