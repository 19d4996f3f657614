"""Who asks, and whether such a caller may."""

from __future__ import annotations

import hashlib
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamplighter.api.errors import NotFound, PermissionDenied, Unauthenticated
from lamplighter.api.operations import EVERY_KEY, OPERATIONS
from lamplighter.control.caller import Caller
from lamplighter.control.http.auth import authorize, bearer, hash_token, refuse

PERSONAL = Caller(key_id=1, kind="personal", user_id=UUID(int=1), org_id=None, project_id=None)
ORGANIZATION = Caller(key_id=2, kind="organization", user_id=UUID(int=1), org_id="org-a", project_id=None)
PROJECT = Caller(key_id=3, kind="project", user_id=UUID(int=1), org_id="org-a", project_id="mine")
CALLERS = (PERSONAL, ORGANIZATION, PROJECT)

#: HTTP headers arrive as Latin-1.
headers = st.text(st.characters(max_codepoint=255), max_size=40)


# --- the token


@given(st.one_of(st.none(), headers, headers.map(lambda text: f"Bearer {text}")))
def test_any_header_holds_a_token_or_proves_nobody(header):
    try:
        token = bearer(header)
    except Unauthenticated:
        return
    assert header is not None
    assert header[:7].lower() == "bearer "
    assert token == header[7:].strip() != ""
    assert len(hash_token(token)) == 32


@given(st.sampled_from(["Bearer", "bearer", "BEARER"]), st.from_regex(r"napi_[a-z0-9]{59}", fullmatch=True))
def test_a_bearer_token_is_found_in_any_spelling(scheme, token):
    assert bearer(f"{scheme} {token}") == token
    assert bearer(f"{scheme}   {token} ") == token


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Bearer    ", "Basic abc", "napi_abc", "Bearerx abc"]
)
def test_a_header_without_a_bearer_token_is_refused(header):
    with pytest.raises(Unauthenticated):
        bearer(header)


def test_what_is_stored_of_a_key_is_its_hash():
    assert hash_token("napi_abc") == hashlib.sha256(b"napi_abc").digest()


# --- the permission


def allowed(operation, caller, path) -> bool:
    try:
        authorize(operation, caller, path)
    except (NotFound, PermissionDenied):
        return False
    return True


@pytest.mark.parametrize("caller", CALLERS, ids=lambda caller: caller.kind)
def test_the_table_decides_which_kinds_of_key_may(caller):
    path = {"project_id": "mine"}
    for operation in OPERATIONS.values():
        assert allowed(operation, caller, path) is (caller.kind in operation.callers), operation.id


def test_a_key_of_a_project_reaches_that_project_alone():
    for operation in OPERATIONS.values():
        if "project" in operation.callers and "{project_id}" in operation.path:
            assert allowed(operation, PROJECT, {"project_id": "mine"})
            with pytest.raises(NotFound, match="project not found"):
                authorize(operation, PROJECT, {"project_id": "others"})


def test_keys_of_people_and_organizations_are_not_held_to_a_project_here():
    operation = OPERATIONS["getProject"]
    assert allowed(operation, PERSONAL, {"project_id": "any"})
    assert allowed(operation, ORGANIZATION, {"project_id": "any"})


def test_a_key_of_a_project_makes_no_projects():
    with pytest.raises(PermissionDenied, match="project-scoped keys are not allowed to create projects"):
        authorize(OPERATIONS["createProject"], PROJECT, {})


def test_a_refusal_is_in_neons_words():
    listing = OPERATIONS["listProjects"]
    assert 'subject_project_id:"mine"' in refuse(listing, PROJECT).message
    assert refuse(listing, ORGANIZATION).message == "not allowed for organization API keys"


def test_a_personal_key_may_call_everything_so_that_no_refusal_is_needed_for_it():
    assert all("personal" in operation.callers <= EVERY_KEY for operation in OPERATIONS.values())


# --- whose rate limit


def test_requests_count_against_the_organization_or_else_the_person():
    assert PROJECT.account == ORGANIZATION.account == "org-a"
    assert PERSONAL.account == str(UUID(int=1))
