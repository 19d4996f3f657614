"""Writes docs/operations.md, every operation of the API and its method: `python -m docs.operations_page` in `tests`."""

from __future__ import annotations

from lamplighter.api.operations import OPERATIONS
from lamplighter.client.names import GROUPS

from .snippets import DOCS

_HEAD = """# Operations

Neon's API has 163 operations. Each is one method of the client, in a group, and one request. `lamp api` takes either
name of it, and `lamp api NAME --describe` tells what it takes. Which of them a server of `lamp up` answers is in the
[README](../README.md#what-is-not-there-yet); what it does not have is `NotAvailable`.

This page is made from the table that the client is made from. What takes more than one request, or any request, is not
in it: `neon.connection_string`, `neon.connect`, `neon.request`, `neon.operations.wait`, `neon.branches.get_or_create`
and `neon.projects.get_or_create`.
"""


def page() -> str:
    """The page as it has to be."""
    parts = [_HEAD]
    for group in GROUPS.values():
        parts.append(
            f"\n## `neon.{group.name}`\n\n{group.doc}\n\n| method | operation | what it does |\n|---|---|---|\n"
        )
        for call in group.calls:
            operation = OPERATIONS[call.id]
            parts.append(f"| `{call.method}` | `{call.id}`<br>`{operation.method} {operation.path}` | {call.doc} |\n")
    return "".join(parts)


if __name__ == "__main__":
    (DOCS / "operations.md").write_text(page())
