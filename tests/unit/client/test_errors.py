import inspect

import pytest

from lamplighter.client import errors
from lamplighter.client.errors import APIError, NeonError, by_status

CLASSES = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, NeonError)]


@pytest.mark.parametrize("kind", CLASSES)
def test_the_drawn_tree_names_every_class(kind):
    assert kind.__name__ in errors.__doc__


@pytest.mark.parametrize("kind", CLASSES)
def test_the_docstring_is_the_message(kind):
    facts = {"operation": object()} if kind is errors.OperationFailed else {}
    assert kind(**facts).message == kind.__doc__.splitlines()[0].rstrip(".")
    assert kind("something else", **facts).message == "something else"
    assert isinstance(kind(**facts), NeonError)


@pytest.mark.parametrize("status", range(300, 600))
def test_every_status_has_a_class(status):
    wanted = errors.BY_STATUS.get(status) or (errors.ServerError if status >= 500 else APIError)
    assert by_status(status) is wanted
    assert by_status(status)(status=status).retryable is (status in {423, 429, 503})


def test_an_error_says_what_helps_to_find_it():
    error = errors.NotFound("branch not found", status=404, code="", request_id="r-1", operation_id="getProjectBranch")
    assert str(error) == "branch not found (404, getProjectBranch, request r-1)"
    assert error.args == ("branch not found",)


def test_a_hint_of_the_class_stays_unless_there_is_another():
    assert "revoked" in errors.AuthenticationError(status=401).hint
    assert errors.AuthenticationError(status=401, hint="x").hint == "x"
    assert errors.NotFound().hint is None


@pytest.mark.parametrize(("status", "may"), [(500, True), (502, True), (503, False), (504, True)])
def test_a_server_that_failed_may_have_acted_but_for_503(status, may):
    assert errors.ServerError(status=status).may_have_acted is may
