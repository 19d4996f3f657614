import json
from datetime import UTC, datetime, timedelta, timezone
from enum import Enum
from urllib.parse import parse_qsl, unquote
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamplighter.api.models.branches import BranchCreateRequestEndpointOptions, BranchUpdate
from lamplighter.api.secret import Secret
from lamplighter.client.spec import OMIT, Spec, build, encode, free_path, pairs, plain, point_in_time, segment

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
ROLE = Spec(id="getRole", method="GET", path="/projects/{project_id}/roles/{role_name}", safe=True)


@given(st.text(min_size=1).filter(lambda text: text not in {".", ".."}))
def test_a_value_stays_one_part_of_the_path(text):
    try:
        found = segment("role_name", text)
    except UnicodeEncodeError:
        # Half of a surrogate pair: no text that any server could have.
        return
    assert unquote(found) == text
    assert not set(found) & set("/?#\\ ;=&")
    assert found not in {".", ".."}


@pytest.mark.parametrize("value", ["", ".", "..", None, b"x", 1.5, True, ["x"]])
def test_what_would_be_another_path_is_refused(value):
    with pytest.raises(ValueError, match="role_name"):
        build(ROLE, path={"project_id": "p", "role_name": value})


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a/b", "a%2Fb"),
        ("../x", "..%2Fx"),
        ("a b?c#d", "a%20b%3Fc%23d"),
        ("~a-b_c.d", "~a-b_c.d"),
        (7, "7"),
        (UUID(int=0), "00000000-0000-0000-0000-000000000000"),
        ("%2e%2e", "%252e%252e"),
    ],
)
def test_how_values_stand_in_a_path(value, text):
    assert build(ROLE, path={"project_id": "p", "role_name": value}).path == f"/projects/p/roles/{text}"


def test_a_request_has_what_the_spec_says():
    request = build(ROLE, path={"project_id": "p", "role_name": "r"}, query={"a": "b c&d"})
    assert (request.method, request.operation_id, request.safe, request.body) == ("GET", "getRole", True, None)
    assert request.target == "/projects/p/roles/r?a=b%20c%26d"


class Colour(Enum):
    RED = "red"


@pytest.mark.parametrize(
    ("value", "texts"),
    [
        (None, []),
        (OMIT, []),
        (True, ["true"]),
        (False, ["false"]),
        (0, ["0"]),
        (2.5, ["2.5"]),
        ("", [""]),
        (NOON, ["2026-01-31T12:00:00Z"]),
        (NOON.astimezone(timezone(timedelta(hours=2))), ["2026-01-31T12:00:00Z"]),
        (["a", "b"], ["a", "b"]),
        (("a", None), ["a"]),
        ([], []),
        (Colour.RED, ["red"]),
    ],
)
def test_how_values_stand_in_a_query(value, texts):
    assert pairs({"name": value}) == tuple(("name", text) for text in texts)


@given(st.dictionaries(st.text(min_size=1), st.lists(st.text(), min_size=1)))
def test_a_query_is_read_as_it_was_meant(query):
    try:
        target = build(ROLE, path={"project_id": "p", "role_name": "r"}, query=query).target
    except UnicodeEncodeError:
        return
    wanted = [(name, value) for name, values in query.items() for value in values]
    assert parse_qsl(target.partition("?")[2], keep_blank_values=True) == wanted


def test_a_query_takes_no_objects():
    with pytest.raises(ValueError, match="filter cannot be dict"):
        pairs({"filter": {}})


@pytest.mark.parametrize(
    "use",
    [
        lambda naive: pairs({"from": naive}),
        lambda naive: encode({"branch": {"expires_at": naive}}),
        lambda naive: point_in_time(naive, "lsn", "timestamp"),
    ],
    ids=["query", "body", "point in time"],
)
def test_a_time_without_a_zone_is_refused(use):
    with pytest.raises(ValueError, match="zone"):
        use(datetime(2026, 1, 31, 12))  # noqa: DTZ001 - it is the point


@pytest.mark.parametrize(
    ("at", "fields"),
    [
        (None, {}),
        ("0/1A2B3C4", {"lsn": "0/1A2B3C4"}),
        ("FFFFFFFF/0", {"lsn": "FFFFFFFF/0"}),
        (NOON, {"timestamp": "2026-01-31T12:00:00Z"}),
        (NOON.replace(microsecond=250), {"timestamp": "2026-01-31T12:00:00.000250Z"}),
        ("2026-01-31T12:00:00+02:00", {"timestamp": "2026-01-31T12:00:00+02:00"}),
    ],
)
def test_a_point_in_time_is_a_time_or_an_lsn(at, fields):
    assert point_in_time(at, "lsn", "timestamp") == fields


@pytest.mark.parametrize("at", ["", "yesterday", "0-1A", "2026-01-31", "G/1"])
def test_any_other_point_in_time_is_refused(at):
    with pytest.raises(ValueError, match="LSN"):
        point_in_time(at, "lsn", "timestamp")


def test_a_body_has_null_where_none_was_meant_and_nothing_where_omit():
    assert json.loads(encode({"a": None, "b": OMIT, "c": [{"d": OMIT, "e": None}]})) == {"a": None, "c": [{"e": None}]}


def test_a_model_gives_what_was_set_in_it():
    """A field that was left alone is not sent: null would take the branch's end away."""
    assert plain(BranchUpdate(name="b")) == {"name": "b"}
    assert plain(BranchUpdate(expires_at=None)) == {"expires_at": None}
    assert plain(BranchUpdate(expires_at=NOON, of_tomorrow=1)) == {
        "expires_at": "2026-01-31T12:00:00Z",
        "of_tomorrow": 1,
    }
    options = BranchCreateRequestEndpointOptions(type="read_write")
    assert plain({"endpoints": [options, {"type": "read_only"}]}) == {
        "endpoints": [{"type": "read_write"}, {"type": "read_only"}]
    }


def test_a_body_takes_what_json_knows_and_some_more():
    body = {"secret": Secret("s"), "colour": Colour.RED, "set": {"a"}, "bytes": (1, 2.5, True), "text": "é"}
    assert json.loads(encode(body)) == {
        "secret": "s",
        "colour": "red",
        "set": ["a"],
        "bytes": [1, 2.5, True],
        "text": "é",
    }


def test_a_request_does_not_show_its_body():
    spec = Spec(id="x", method="POST", path="/x")
    request = build(spec, path={}, body={"client_secret": "hunter2"})
    assert request.body == b'{"client_secret":"hunter2"}'
    assert request.content_type == "application/json"
    assert "hunter2" not in repr(request)


def test_no_body_is_not_an_empty_one():
    spec = Spec(id="x", method="POST", path="/x")
    assert build(spec, path={}).body is None
    assert build(spec, path={}).content_type is None
    assert build(spec, path={}, body={}).body == b"{}"


def test_a_form_has_a_part_for_each_field():
    spec = Spec(id="x", method="POST", path="/x", body_media="multipart/form-data")
    request = build(spec, path={}, body={"zip": b"PK\r\n--", "runtime": "nodejs24", "environment": None})
    media, _, boundary = request.content_type.partition("; boundary=")
    assert media == "multipart/form-data"
    parts = request.body.split(f"--{boundary}".encode())
    assert parts[0] == b""
    assert parts[-1] == b"--\r\n"
    heads = [part.partition(b"\r\n\r\n") for part in parts[1:-1]]
    assert b'name="zip"; filename="zip"' in heads[0][0]
    assert heads[0][2] == b"PK\r\n--\r\n"
    assert b'name="runtime"' in heads[1][0]
    assert heads[1][2] == b"nodejs24\r\n"


@pytest.mark.parametrize("path", ["/projects", "/projects/a%2Fb/branches", "/x/", "/a.b/~c"])
def test_a_path_of_ones_own(path):
    assert free_path(path) == path


@pytest.mark.parametrize(
    "path", ["", "projects", "http://x/y", "//x/y", "/a/../b", "/a/%2e%2E/b", "/a?b=c", "/a#b", "/a b"]
)
def test_a_path_that_would_lead_elsewhere_is_refused(path):
    with pytest.raises(ValueError, match="path"):
        free_path(path)


def test_omit_is_false_and_says_its_name():
    assert not OMIT
    assert repr(OMIT) == "OMIT"
