"""The README tells users what the table says, and the features serve just that."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lamplighter.api.coverage import BEGIN, END, table
from lamplighter.api.operations import OPERATIONS
from lamplighter.control.http.binding import TableMismatch, check_table
from lamplighter.control.http.calls import Call, Reply

README = Path(__file__).parents[3] / "README.md"


async def handler(_call: Call) -> Reply:
    return Reply(None)


def test_the_readme_shows_the_table():
    """`python -m lamplighter.api.coverage` prints what the README must hold."""
    text = README.read_text()
    shown = text[text.index(BEGIN) : text.index(END) + len(END)]
    assert shown == table()


def test_the_readme_counts_what_the_table_serves():
    count = sum(operation.served for operation in OPERATIONS.values())
    assert re.search(rf"\b{count} of {len(OPERATIONS)} operations\b", README.read_text())


def test_a_feature_that_the_table_does_not_list_stops_the_platform():
    served = {operation.id: handler for operation in OPERATIONS.values() if operation.served}
    check_table(served)
    with pytest.raises(TableMismatch, match="listSnapshots"):
        check_table({**served, "listSnapshots": handler})


def test_a_listed_operation_without_a_feature_stops_the_platform():
    served = {operation.id: handler for operation in OPERATIONS.values() if operation.served}
    del served["getProject"]
    with pytest.raises(TableMismatch, match="getProject"):
        check_table(served)
