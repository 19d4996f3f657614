"""What a branch may be, and when it may go."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamplighter.api.errors import ApiError, BadRequest, NotServed, Unprocessable
from lamplighter.api.models.branches import AnnotatedBranchCreateRequest
from lamplighter.control.features.branches.plan import (
    LONGEST_LIFE,
    PARENT_DATA,
    SCHEMA_ONLY,
    BranchWish,
    check_deletable,
    check_expiry,
    check_init_source,
    ttl_seconds,
    wish,
)

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)

lives = st.timedeltas(-timedelta(days=400), timedelta(days=400))


def asked(**branch) -> AnnotatedBranchCreateRequest:
    return AnnotatedBranchCreateRequest.model_validate({"branch": branch})


# --- a new branch


@pytest.mark.parametrize("body", [None, AnnotatedBranchCreateRequest()])
def test_no_body_asks_for_a_copy_of_the_default_branch(body):
    assert wish(body, now=NOW) == BranchWish()


def test_an_annotation_without_a_branch_is_kept():
    body = AnnotatedBranchCreateRequest.model_validate({"annotation_value": {"pull": "12"}})
    assert wish(body, now=NOW).annotation == {"pull": "12"}


def test_what_is_asked_is_wished():
    body = AnnotatedBranchCreateRequest.model_validate(
        {
            "branch": {
                "name": "dev",
                "parent_id": "br-a-b-c",
                "init_source": "schema-only",
                "expires_at": "2026-11-22T12:00:00Z",
            },
            "annotation_value": {"a": "b"},
        }
    )
    assert wish(body, now=NOW) == BranchWish(
        name="dev",
        parent_id="br-a-b-c",
        protected=False,
        init_source=SCHEMA_ONLY,
        expires_at=NOW + timedelta(days=1),
        annotation={"a": "b"},
    )


@pytest.mark.parametrize(
    "branch",
    [
        {"parent_lsn": "0/1"},
        {"parent_timestamp": "2026-11-20T12:00:00Z"},
        {"archived": True},
        {"init_source": "parent-schema"},
        {"init_source": "import"},
        {"init_source": "anonymized"},
    ],
)
def test_what_the_api_knows_and_this_server_has_not_is_said_to_be_not_available(branch):
    with pytest.raises(NotServed, match="not available on this server"):
        wish(asked(**branch), now=NOW)


def test_two_moments_of_the_parent_contradict_each_other():
    with pytest.raises(BadRequest, match="not both"):
        wish(asked(parent_lsn="0/1", parent_timestamp="2026-11-20T12:00:00Z"), now=NOW)


def test_a_protected_branch_is_not_made_to_expire():
    with pytest.raises(BadRequest) as refused:
        wish(asked(protected=True, expires_at="2026-11-22T12:00:00Z"), now=NOW)
    assert refused.value.code == "PROTECTED_BRANCH_EXPIRATION_NOT_ALLOWED"


@given(st.none() | st.text(max_size=20) | st.sampled_from([PARENT_DATA, SCHEMA_ONLY, "import"]))
def test_an_init_source_is_one_of_two_or_refused(source):
    try:
        assert check_init_source(source) in (PARENT_DATA, SCHEMA_ONLY)
    except ApiError:
        assert source not in (None, PARENT_DATA, SCHEMA_ONLY)
    else:
        assert source in (None, PARENT_DATA, SCHEMA_ONLY)


# --- when it ends


@given(lives)
def test_a_branch_ends_in_the_future_and_within_30_days(life):
    allowed = timedelta(0) < life <= LONGEST_LIFE
    try:
        check_expiry(NOW + life, protected=False, is_default=False, now=NOW)
    except BadRequest:
        assert not allowed
    else:
        assert allowed


@pytest.mark.parametrize(
    ("life", "allowed"),
    [
        (timedelta(0), False),
        (timedelta(microseconds=1), True),
        (timedelta(days=30), True),
        (timedelta(days=30, microseconds=1), False),
    ],
)
def test_the_bounds_of_a_life_are_exact(life, allowed):
    if allowed:
        check_expiry(NOW + life, protected=False, is_default=False, now=NOW)
    else:
        with pytest.raises(BadRequest, match="expires_at must be"):
            check_expiry(NOW + life, protected=False, is_default=False, now=NOW)


@given(st.none() | lives, st.booleans(), st.booleans())
def test_neither_a_protected_nor_the_default_branch_expires(life, protected, is_default):
    expires_at = None if life is None else NOW + life
    if expires_at is None:
        check_expiry(None, protected=protected, is_default=is_default, now=NOW)
    elif protected or is_default:
        with pytest.raises(BadRequest) as refused:
            check_expiry(expires_at, protected=protected, is_default=is_default, now=NOW)
        which = "PROTECTED" if protected else "DEFAULT"
        assert refused.value.code == f"{which}_BRANCH_EXPIRATION_NOT_ALLOWED"


def test_the_given_life_is_told_in_seconds():
    assert ttl_seconds(None, NOW) is None
    assert ttl_seconds(NOW + timedelta(days=1), NOW) == 86_400
    assert ttl_seconds(NOW + timedelta(seconds=59, milliseconds=900), NOW) == 60


# --- whether it may go


@given(st.booleans(), st.booleans(), st.booleans(), st.integers(0, 3))
def test_only_a_leaf_that_nobody_needs_can_be_deleted(is_default, protected, original_root, children):
    facts = {"is_default": is_default, "protected": protected, "original_root": original_root, "children": children}
    if any(facts.values()):
        with pytest.raises(Unprocessable, match=r"cannot be deleted; .|delete them first"):
            check_deletable(**facts)
    else:
        check_deletable(**facts)


@pytest.mark.parametrize(
    ("fact", "advice"),
    [
        ({"is_default": True}, "make another branch the default first"),
        ({"protected": True}, "remove its protection first"),
        ({"original_root": True}, "delete the project instead"),
        ({"children": 2}, "has 2 child branches"),
    ],
)
def test_the_refusal_says_what_to_do(fact, advice):
    free = {"is_default": False, "protected": False, "original_root": False, "children": 0}
    with pytest.raises(Unprocessable, match=advice):
        check_deletable(**free | fact)
