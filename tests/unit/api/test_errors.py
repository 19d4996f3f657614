import pytest

from lamplighter.api import errors

WANTED = {
    400: errors.BadRequest,
    401: errors.Unauthenticated,
    403: errors.PermissionDenied,
    404: errors.NotFound,
    405: errors.MethodNotAllowed,
    406: errors.NotAcceptable,
    409: errors.Conflict,
    412: errors.PreconditionFailed,
    413: errors.PayloadTooLarge,
    422: errors.Unprocessable,
    423: errors.Locked,
    429: errors.TooManyRequests,
    500: errors.InternalError,
    501: errors.NotServed,
    503: errors.Unavailable,
}


def descendants(kind):
    return [kind, *(each for child in kind.__subclasses__() for each in descendants(child))]


def test_each_status_has_one_class_and_each_public_class_one_status():
    public = [kind for kind in descendants(errors.ApiError)[1:] if not kind.__name__.startswith("_")]
    assert dict(errors.BY_STATUS) == WANTED
    assert sorted(public, key=id) == sorted(WANTED.values(), key=id)
    assert all(kind.status == status for status, kind in WANTED.items())


@pytest.mark.parametrize("kind", WANTED.values())
def test_the_drawn_tree_names_every_class_with_its_status(kind):
    assert f"{kind.__name__} {kind.status}" in errors.__doc__


@pytest.mark.parametrize("kind", WANTED.values())
def test_the_body_is_neons(kind):
    error = kind("what happened", code="SOME_CODE").with_request_id("r-1")
    assert error.body() == {"request_id": "r-1", "code": "SOME_CODE", "message": "what happened"}
    assert kind().body() == {"code": "", "message": kind.default}
    assert str(kind()) == kind.default


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (errors.Unauthenticated(), "supplied credentials do not pass authentication"),
        (errors.Locked(), "project already has running conflicting operations, scheduling of new ones is prohibited"),
        (errors.TooManyRequests(), "too many requests"),
        (errors.TooManyRequests(), "rate limit"),
        (errors.NotServed.operation("getNeonAuth"), "getNeonAuth is not available on this server"),
        (
            errors.BadRequest.undecodable("project (field required)"),
            "invalid request: decode application/json: invalid: project (field required)",
        ),
    ],
)
def test_texts_that_clients_look_for(error, words):
    assert words in error.message


def test_only_what_surely_did_nothing_may_be_repeated():
    assert {status for status, kind in WANTED.items() if kind.retryable} == {423, 429, 503}


@pytest.mark.parametrize("kind", [errors.TooManyRequests, errors.Unavailable])
def test_the_time_to_wait_is_kept(kind):
    assert kind(retry_after=2.5).retry_after == 2.5
    assert kind().retry_after is None
