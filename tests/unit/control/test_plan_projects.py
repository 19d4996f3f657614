"""What a new or changed project has."""

from __future__ import annotations

import copy
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamplighter.api.errors import BadRequest, NotServed
from lamplighter.api.models.projects import ProjectCreate
from lamplighter.control.features.projects.plan import (
    HISTORY_SECONDS,
    SETTINGS,
    check_logical_replication,
    check_settings,
    endpoint_defaults,
    merge,
    plain,
    wish,
)
from lamplighter.control.features.projects.routes import month_of

REGION = "aws-us-east-2"

scalars = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
names = st.sampled_from("abc")
settings_data = st.dictionaries(names, st.dictionaries(names, scalars, min_size=1, max_size=3) | scalars, max_size=3)


def wished(**project):
    return wish(ProjectCreate.model_validate(project), default_region=REGION)


# --- a new project


def test_who_asks_for_nothing_gets_what_neon_gives():
    made = wished()
    assert (made.name, made.org_id, made.region_id, made.pg_version) == (None, None, REGION, 17)
    assert (made.branch_name, made.database_name, made.role_name) == ("main", "neondb", "neondb_owner")
    assert made.provisioner == "k8s-neonvm"
    assert made.store_passwords is True
    assert made.history_retention_seconds == HISTORY_SECONDS
    assert made.settings == SETTINGS
    assert made.default_endpoint_settings == {
        "autoscaling_limit_min_cu": 0.25,
        "autoscaling_limit_max_cu": 0.25,
        "suspend_timeout_seconds": 0,
    }
    assert made.branch_annotations == {}


def test_what_is_asked_is_wished():
    made = wished(
        name="shop",
        org_id="org-a",
        region_id="azure-eastus2",
        pg_version=16,
        provisioner="k8s-pod",
        store_passwords=False,
        history_retention_seconds=0,
        settings={"enable_logical_replication": True},
        branch={"name": "trunk", "role_name": "app", "database_name": "shop", "annotations": {"a": "b"}},
    )
    assert (made.name, made.org_id, made.region_id, made.pg_version) == ("shop", "org-a", "azure-eastus2", 16)
    assert (made.provisioner, made.store_passwords, made.history_retention_seconds) == ("k8s-pod", False, 0)
    assert made.settings == {**SETTINGS, "enable_logical_replication": True}
    assert (made.branch_name, made.database_name, made.role_name) == ("trunk", "shop", "app")
    assert made.branch_annotations == {"a": "b"}


def test_the_first_role_is_named_after_the_first_database():
    assert wished(branch={"database_name": "shop"}).role_name == "shop_owner"


def test_the_old_way_to_give_a_size_counts_more_than_the_defaults():
    made = wished(autoscaling_limit_max_cu=2, default_endpoint_settings={"autoscaling_limit_max_cu": 4})
    assert made.default_endpoint_settings["autoscaling_limit_max_cu"] == 2


@pytest.mark.parametrize(
    "project",
    [
        {"region_id": "mars-north-1"},
        {"branch": {"role_name": "postgres"}},
        {"branch": {"database_name": "template1"}},
        {"branch": {"database_name": "x" * 64}},
        {"autoscaling_limit_min_cu": 4, "autoscaling_limit_max_cu": 2},
        {"autoscaling_limit_max_cu": 57},
        {"default_endpoint_settings": {"suspend_timeout_seconds": 30}},
    ],
)
def test_a_project_that_could_not_be_made_is_refused(project):
    with pytest.raises(BadRequest):
        wished(**project)


@pytest.mark.parametrize("name", ["hipaa", "block_public_connections", "block_vpc_connections"])
def test_what_would_be_promised_and_not_kept_is_not_available(name):
    with pytest.raises(NotServed, match=f"{name} is not available"):
        wished(settings={name: True})


@pytest.mark.parametrize("address", ["10.0.0.1", "10.0.0.0/8", "10.0.0.1/8", "10.0.0.1-10.0.0.9", "::1", "fd00::/8"])
def test_addresses_blocks_and_ranges_may_be_allowed(address):
    settings = {"allowed_ips": {"ips": [address]}}
    assert check_settings(settings) == settings


@pytest.mark.parametrize("address", ["", "localhost", "10.0.0.9-10.0.0.1", "10.0.0.1-::1", "10.0.0.1-", "10.0.0.0/33"])
def test_what_is_no_address_cannot_be_allowed(address):
    with pytest.raises(BadRequest, match="allowed_ips"):
        check_settings({"allowed_ips": {"ips": ["10.0.0.1", address]}})


def test_settings_that_ask_for_nothing_are_taken():
    settings = {"allowed_ips": {"ips": [], "protected_branches_only": True}, "hipaa": False}
    assert check_settings(settings) == settings


# --- merging


@given(settings_data, settings_data)
def test_a_merge_has_what_was_given_and_leaves_the_rest(present, given):
    merged = merge(present, given)
    assert set(merged) == set(present) | set(given)
    for name, value in merged.items():
        if name not in given:
            assert value == present[name]
        elif not isinstance(given[name], dict) or not isinstance(present.get(name), dict):
            assert value == given[name]
        else:
            assert value == {**present[name], **given[name]}


@given(settings_data, settings_data)
def test_a_merge_done_twice_is_the_merge_done_once(present, given):
    once = merge(present, given)
    assert merge(once, given) == once


@given(settings_data, settings_data)
def test_a_merge_changes_neither_of_its_parts(present, given):
    before = copy.deepcopy((present, given))
    merge(present, given)["new"] = 1
    assert (present, given) == before


def test_an_object_is_merged_by_its_fields():
    present = {"quota": {"active_time_seconds": 1, "compute_time_seconds": 2}, "hipaa": False}
    assert merge(present, {"quota": {"active_time_seconds": 5}}) == {
        "quota": {"active_time_seconds": 5, "compute_time_seconds": 2},
        "hipaa": False,
    }


def test_only_what_was_said_is_stored():
    assert plain(None) == {}
    assert plain(ProjectCreate.model_validate({"name": "a", "settings": {"hipaa": False, "later": 1}}).settings) == {
        "hipaa": False,
        "later": 1,
    }


# --- the defaults of endpoints


sizes = st.floats(0.25, 56)


@given(sizes, sizes, st.sampled_from(["autoscaling_limit_min_cu", "autoscaling_limit_max_cu"]), sizes)
def test_changing_one_end_of_the_default_size_leaves_a_size_that_an_endpoint_can_have(one, other, end, asked):
    present = {"autoscaling_limit_min_cu": min(one, other), "autoscaling_limit_max_cu": max(one, other), "x": 1}
    settled = endpoint_defaults(present, {end: asked})
    assert settled[end] == asked
    assert 0.25 <= settled["autoscaling_limit_min_cu"] <= settled["autoscaling_limit_max_cu"] <= 56
    assert settled["x"] == 1
    assert endpoint_defaults(settled, {end: asked}) == settled


def test_settings_of_postgres_are_kept_until_others_are_given():
    present = endpoint_defaults({}, {"pg_settings": {"work_mem": "8MB"}, "suspend_timeout_seconds": 60})
    assert endpoint_defaults(present, {}) == present
    changed = endpoint_defaults(present, {"pg_settings": {"jit": "off"}})
    assert changed["pg_settings"] == {"jit": "off"}
    assert changed["suspend_timeout_seconds"] == 60


# --- logical replication


@given(settings_data, st.none() | st.booleans(), settings_data, st.none() | st.booleans())
def test_logical_replication_is_never_turned_off_again(before, was, after, becomes):
    before, after = {**before, "enable_logical_replication": was}, {**after, "enable_logical_replication": becomes}
    if was and not becomes:
        with pytest.raises(BadRequest, match="cannot be disabled"):
            check_logical_replication(before, after)
    else:
        check_logical_replication(before, after)


def test_a_setting_that_is_gone_is_one_that_was_turned_off():
    with pytest.raises(BadRequest):
        check_logical_replication({"enable_logical_replication": True}, {})


# --- the month that a project's use is counted in


@given(
    st.datetimes(
        min_value=datetime(1, 1, 1),  # noqa: DTZ001 - hypothesis adds the zone
        max_value=datetime(9999, 10, 31, 23, 59, 59, 999999),  # noqa: DTZ001
        timezones=st.just(UTC),
    )
)
def test_a_month_holds_its_moment_and_ends_where_the_next_begins(now):
    start, end = month_of(now)
    assert start <= now < end
    assert (start.year, start.month) == (now.year, now.month)
    assert month_of(end)[0] == end
    assert month_of(end - timedelta(microseconds=1)) == (start, end)
    assert start.tzinfo is end.tzinfo is UTC


def test_december_ends_with_the_year():
    now = datetime(2026, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)
    assert month_of(now) == (datetime(2026, 12, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC))
