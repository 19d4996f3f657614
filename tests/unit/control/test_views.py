"""Resources as the API shows them: what the catalog holds, in the contract's own form."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamplighter.api.models import branches, databases, endpoints, projects, roles
from lamplighter.api.models.branches import BranchCreateRequestEndpointOptions
from lamplighter.api.secret import Secret
from lamplighter.control.features.branches.model import Branch
from lamplighter.control.features.branches.views import show_annotation, show_branch
from lamplighter.control.features.databases.service import Database
from lamplighter.control.features.databases.views import show_database
from lamplighter.control.features.endpoints.model import READ_ONLY, READ_WRITE, Endpoint
from lamplighter.control.features.endpoints.views import settings_of, show_endpoint
from lamplighter.control.features.projects.routes import _page, month_of, show_listed, show_project
from lamplighter.control.features.projects.store import Project
from lamplighter.control.features.roles.service import Role
from lamplighter.control.features.roles.views import show_role
from lamplighter.control.http.calls import to_wire
from lamplighter.control.kernel import Place

AT = datetime(2026, 11, 21, 12, 30, 1, 250, tzinfo=UTC)
WIRE = "2026-11-21T12:30:01Z"
PLACE = Place()

BRANCH = Branch(
    id="br-noisy-breeze-a5e59rrb",
    project_id="old-violet-32930710",
    parent_id=None,
    parent_timestamp=None,
    name="main",
    is_default=True,
    protected=False,
    current_state="ready",
    pending_state=None,
    state_changed_at=AT,
    init_source="parent-data",
    creation_source="console",
    created_by_name="somebody",
    logical_size=None,
    expires_at=None,
    ttl_interval_seconds=None,
    annotation={"pull": "12"},
    created_at=AT,
    updated_at=AT,
)
ENDPOINT = Endpoint(
    id="ep-misty-sea-a5833nbi",
    project_id=BRANCH.project_id,
    branch_id=BRANCH.id,
    name=None,
    type=READ_WRITE,
    current_state="idle",
    pending_state=None,
    autoscaling_limit_min_cu=0.25,
    autoscaling_limit_max_cu=2.0,
    suspend_timeout_seconds=0,
    settings={"pg_settings": {"work_mem": "8MB"}},
    pooler_mode="transaction",
    disabled=False,
    passwordless_access=True,
    region_id="aws-us-east-2",
    provisioner="k8s-neonvm",
    creation_source="console",
    port=20_007,
    pooler_port=20_008,
    last_active=None,
    started_at=None,
    suspended_at=None,
    created_at=AT,
    updated_at=AT,
)
PROJECT = Project(
    id=BRANCH.project_id,
    org_id="org-calm-lake-12345678",
    org_name="Personal",
    owner_user_id=UUID(int=1),
    owner_email="somebody@localhost",
    owner_name="somebody",
    name="first",
    region_id="aws-us-east-2",
    pg_version=17,
    provisioner="k8s-neonvm",
    store_passwords=True,
    default_endpoint_settings={"autoscaling_limit_min_cu": 0.25, "suspend_timeout_seconds": 0},
    settings={"allowed_ips": {"ips": [], "protected_branches_only": False}},
    history_retention_seconds=86_400,
    compute_last_active_at=None,
    created_at=AT,
    updated_at=AT,
)
ROLE = Role(BRANCH.id, "app", b"sealed", "password", False, True, True, AT, AT)
DATABASE = Database(7, BRANCH.id, "neondb", None, "app", True, AT, AT)

VIEWS = [
    pytest.param(branches.Branch, show_branch(BRANCH), id="branch"),
    pytest.param(endpoints.Endpoint, show_endpoint(ENDPOINT, PLACE), id="endpoint"),
    pytest.param(projects.Project, show_project(PROJECT, PLACE), id="project"),
    pytest.param(projects.ProjectListItem, show_listed(PROJECT, PLACE), id="listed"),
    pytest.param(roles.Role, show_role(ROLE), id="role"),
    pytest.param(databases.Database, show_database(DATABASE), id="database"),
]

maybe_moments = st.none() | st.datetimes(
    min_value=datetime(2, 1, 1),  # noqa: DTZ001 - hypothesis adds the zone
    max_value=datetime(9998, 1, 1),  # noqa: DTZ001
    timezones=st.just(UTC),
)
maybe_texts = st.none() | st.text(max_size=5)


@pytest.mark.parametrize(("model", "shown"), VIEWS)
def test_a_view_is_what_the_contract_says_and_reads_back(model, shown):
    wire = to_wire(shown)
    assert to_wire(model.model_validate(wire)) == wire
    # Nothing is shown that the contract does not name.
    assert set(wire) <= set(model.model_fields)


@pytest.mark.parametrize(("model", "shown"), VIEWS)
def test_what_is_not_there_is_absent_and_never_null(model, shown):
    assert None not in to_wire(shown).values()


@given(maybe_texts, st.none() | st.sampled_from(["init", "active"]), maybe_moments, maybe_moments)
def test_an_endpoint_shows_exactly_what_it_has(name, pending, started, suspended):
    facts: dict[str, Any] = {
        "name": name,
        "pending_state": pending,
        "started_at": started,
        "suspended_at": suspended,
        "last_active": started,
    }
    wire = to_wire(show_endpoint(replace(ENDPOINT, **facts), PLACE))
    assert {field for field in facts if field in wire} == {field for field, value in facts.items() if value is not None}


@given(maybe_texts, maybe_moments, st.none() | st.integers(0, 2**62))
def test_a_branch_shows_exactly_what_it_has(parent_id, expires_at, size):
    facts: dict[str, Any] = {
        "parent_id": parent_id,
        "expires_at": expires_at,
        "ttl_interval_seconds": size,
        "logical_size": size,
        "parent_timestamp": expires_at,
    }
    wire = to_wire(show_branch(replace(BRANCH, **facts)))
    assert {field for field in facts if field in wire} == {field for field, value in facts.items() if value is not None}


def test_an_endpoints_host_has_its_port():
    shown = show_endpoint(ENDPOINT, Place(host="127.0.0.2"))
    assert shown.host == "127.0.0.2:20007"
    assert shown.proxy_host == "127.0.0.2"


def test_an_endpoint_shows_its_settings_as_they_were_given():
    assert to_wire(show_endpoint(ENDPOINT, PLACE))["settings"] == ENDPOINT.settings
    assert to_wire(show_endpoint(replace(ENDPOINT, settings={}), PLACE))["settings"] == {}


def test_a_standby_has_a_volume_of_its_own():
    assert ENDPOINT.volume_id == BRANCH.id
    assert replace(ENDPOINT, type=READ_ONLY).volume_id == ENDPOINT.id


def test_the_default_branch_is_the_primary_of_older_clients():
    for is_default in (True, False):
        wire = to_wire(show_branch(replace(BRANCH, is_default=is_default)))
        assert wire["default"] is wire["primary"] is is_default


def test_an_annotation_names_its_branch():
    assert to_wire(show_annotation(BRANCH)) == {
        "object": {"type": "console/branch", "id": BRANCH.id},
        "value": {"pull": "12"},
        "created_at": WIRE,
        "updated_at": WIRE,
    }


def test_a_password_is_shown_where_it_was_just_made_and_nowhere_else():
    assert to_wire(show_role(ROLE, Secret("npg_secret")))["password"] == "npg_secret"
    wire = to_wire(show_role(ROLE))
    assert "password" not in wire
    assert "sealed" not in str(wire)


def test_a_project_shows_an_empty_period_or_the_one_given():
    empty = to_wire(show_project(PROJECT, PLACE))
    assert empty["consumption_period_start"] == empty["consumption_period_end"] == "0001-01-01T00:00:00Z"
    month = to_wire(show_project(PROJECT, PLACE, period=month_of(AT)))
    assert month["consumption_period_start"] == "2026-11-01T00:00:00Z"
    assert month["consumption_period_end"] == "2026-12-01T00:00:00Z"


def test_a_project_shows_when_a_compute_was_last_active():
    assert "compute_last_active_at" not in to_wire(show_project(PROJECT, PLACE))
    active = replace(PROJECT, compute_last_active_at=AT + timedelta(days=1))
    assert to_wire(show_project(active, PLACE))["compute_last_active_at"] == "2026-11-22T12:30:01Z"


def test_a_page_of_projects_ends_with_a_cursor_unless_it_is_empty():
    later = replace(PROJECT, id="wise-wood-12345678")
    page = _page([PROJECT, later], PLACE)
    assert projects.ProjectsPage.model_validate(to_wire(page)).projects[1].id == later.id
    assert page["pagination"] == {"cursor": later.id}
    assert _page([], PLACE) == {"projects": [], "applications": {}, "integrations": {}}


def test_settings_are_stored_as_they_were_said():
    options = {"type": "read_write", "settings": {"pg_settings": {"jit": "off"}, "later": 1}}
    asked = BranchCreateRequestEndpointOptions.model_validate(options)
    assert settings_of(asked) == {"pg_settings": {"jit": "off"}, "later": 1}
    assert settings_of(BranchCreateRequestEndpointOptions(type="read_write")) is None
    assert settings_of(None) is None
