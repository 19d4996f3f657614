import re

import pytest

from lamplighter.api.operations import OPERATIONS
from lamplighter.client.routes import route_of


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=lambda operation: operation.id)
def test_every_operation_is_found_by_its_path(operation):
    """However a request was written, it counts for the same limit."""
    assert route_of(operation.method, re.sub(r"{\w+}", "some%2Fid", operation.path)) == operation.id


def test_what_is_not_known_counts_for_itself():
    assert route_of("GET", "/tomorrow") == "GET /tomorrow"
    assert route_of("POST", "/regions") == "POST /regions"
