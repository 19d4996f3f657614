"""What the plugin asks of a server: the branch it makes, how it goes, what it sweeps. The server is a script."""

from __future__ import annotations

import warnings
from datetime import UTC, datetime, timedelta

import pytest

from lamplighter import Neon
from lamplighter.api.models.base import wire_time
from lamplighter.testing import Dsn, ScriptedTransport, example
from lamplighter.testing.branches import (
    BranchLeft,
    BranchMaker,
    BranchOptions,
    NeonBranch,
    NoParent,
    NoProject,
    choose_project,
)
from lamplighter.testing.naming import MARK, token_of

PROJECT = "calm-lake-1"
TOKEN = "k3v9x0ab12cd"
URI = "postgresql://neondb_owner:npg_s3cret@ep-calm-lake-1.example.test/neondb"


@pytest.fixture
def neon(script):
    with Neon(api_key="test", transport=script) as client:
        yield client


def maker(neon: Neon, **options) -> BranchMaker:
    return BranchMaker(neon, project_id=PROJECT, worker="gw1", options=BranchOptions(**options))


def created(script: ScriptedTransport, **fields) -> None:
    """The server makes any branch, at once."""
    details = example("createProject", connection_uris=[{"connection_uri": URI}])["connection_uris"]
    script.on("createProjectBranch", example("createProjectBranch", endpoints=[{}], connection_uris=details, **fields))
    script.on("deleteProjectBranch")


def overdue(**fields) -> dict:
    return {
        "name": f"lamp-test-gw0-{TOKEN}-x",
        "expires_at": wire_time(datetime.now(UTC) - timedelta(minutes=1)),
        **fields,
    }


def annotation(token: str) -> dict:
    return {"object": {"type": "console/branch", "id": "any"}, "value": {MARK: token}}


def test_a_branch_is_made_with_an_endpoint_an_end_and_a_mark(script, neon):
    created(script)

    branch = maker(neon, ttl=timedelta(minutes=30)).make("test_one")

    body = script.requests[0].body
    end = datetime.fromisoformat(body["branch"]["expires_at"])
    token = token_of(body["branch"]["name"])
    assert body["branch"]["name"] == f"lamp-test-gw1-{token}-test-one"
    assert body["annotation_value"] == {MARK: token}
    assert body["endpoints"] == [{"type": "read_write"}]
    assert timedelta(minutes=29) < end - datetime.now(UTC) <= timedelta(minutes=30)
    assert branch.connection_string == branch.dsn == URI
    assert "s3cret" not in repr(branch)


def test_a_branch_that_does_not_come_up_is_removed(script, neon):
    created(script, operations=[{"status": "running"}])
    failed = {"status": "failed", "error": "no space left"}
    script.on("getProjectOperation", example("getProjectOperation", **failed))
    script.on("listProjectOperations", example("listProjectOperations", operations=[failed]))

    with pytest.raises(Exception, match="no space left"):
        maker(neon).make("test_one")

    assert len(script.requests_of("deleteProjectBranch")) == 1


def test_a_busy_project_is_waited_for(script, neon):
    """Another run may keep the project busy: each request is sent again until it is its turn."""
    script.fail("createProjectBranch", 423, times=2)
    script.fail("deleteProjectBranch", 423, times=1)
    created(script)
    branches = maker(neon)

    branches.remove(branches.make("test_one").id)

    assert len(script.requests_of("createProjectBranch")) == 3
    assert len(script.requests_of("deleteProjectBranch")) == 2


@pytest.mark.parametrize("status", [404, 204])
def test_a_branch_that_is_gone_is_removed_without_a_word(script, neon, status):
    if status == 404:
        script.fail("deleteProjectBranch", 404)
    else:
        script.on("deleteProjectBranch", None, status=204)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        maker(neon).remove("br-1")


def test_a_branch_that_cannot_be_removed_is_a_warning(script, neon):
    script.fail("deleteProjectBranch", 422, message="the branch has 1 child branches")

    with pytest.warns(BranchLeft, match="br-1 could not be removed.*1 child branches"):
        maker(neon).remove("br-1")


def test_the_sweep_takes_children_first_and_nothing_that_is_not_ours(script, neon):
    old, young = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"
    branches = [
        overdue(id="br-1", created_at=old),
        overdue(id="br-2", created_at=young),
        overdue(id="br-3", default=True),
        overdue(id="br-4", name="preview-1"),
        overdue(id="br-5"),
        overdue(id="br-6", expires_at=wire_time(datetime.now(UTC) + timedelta(minutes=1))),
        {"name": f"lamp-test-gw0-{TOKEN}-kept", "id": "br-7"},
    ]
    annotations = {f"br-{number}": annotation(TOKEN) for number in (1, 2, 3, 4, 6, 7)}
    script.on("listProjectBranches", example("listProjectBranches", branches=branches, annotations=annotations))
    script.on("deleteProjectBranch")

    assert maker(neon).sweep() == ["br-2", "br-1"]

    assert [request.path["branch_id"] for request in script.requests_of("deleteProjectBranch")] == ["br-2", "br-1"]
    assert script.requests[0].query["search"] == "lamp-test-"


def test_a_sweep_that_fails_does_not_fail_the_run(script, neon):
    script.fail("listProjectBranches", 403)

    with pytest.warns(BranchLeft, match="could not be looked for"):
        assert maker(neon).sweep() == []


def test_a_branch_is_kept_alive_once_in_half_its_time(script, neon):
    created(script)
    script.on("updateProjectBranch")
    young, old = maker(neon, ttl=timedelta(hours=1)), maker(neon, ttl=timedelta(hours=1))
    for branches in (young, old):
        branches.make("test_one")
    # As it is half an hour later: the clock itself cannot be waited for.
    old._expiries = {name: end - timedelta(minutes=31) for name, end in old._expiries.items()}

    for branches in (young, old, old):
        branches.keep_alive()

    (request,) = script.requests_of("updateProjectBranch")
    end = datetime.fromisoformat(request.body["branch"]["expires_at"])
    assert timedelta(minutes=59) < end - datetime.now(UTC) <= timedelta(hours=1)


def test_a_parent_by_name_is_looked_up_once(script, neon):
    created(script)
    found = [{"name": "seed-2", "id": "br-calm-lake-2"}, {"name": "seed", "id": "br-calm-lake-3"}]
    script.on("listProjectBranches", example("listProjectBranches", branches=found))
    branches = maker(neon, parent="seed")

    for _ in range(2):
        branches.make("test_one")

    assert [one.body["branch"]["parent_id"] for one in script.requests_of("createProjectBranch")] == [
        "br-calm-lake-3"
    ] * 2
    assert len(script.requests_of("listProjectBranches")) == 1


def test_a_parent_that_is_not_there(script, neon):
    script.on("listProjectBranches", example("listProjectBranches", branches=[{"name": "seed-2"}]))

    with pytest.raises(NoParent, match="no branch 'seed' in calm-lake-1"):
        maker(neon, parent="seed").make("test_one")


@pytest.mark.parametrize(("count", "said"), [(0, "there is no project"), (2, "there are several projects")])
def test_none_or_several_projects_are_no_choice(script, neon, count, said):
    script.on("listProjects", example("listProjects", projects=[{}] * count))

    with pytest.raises(NoProject, match=said) as caught:
        choose_project(neon)
    assert caught.value.hint


def test_the_only_project_is_chosen(script, neon):
    script.on("listProjects", example("listProjects", projects=[{"id": "tidy-owl-7"}]))

    assert choose_project(neon) == "tidy-owl-7"


def test_projects_that_cannot_be_listed(script, neon):
    script.fail("listProjects", 400, message="org_id is required")

    with pytest.raises(NoProject, match="org_id is required") as caught:
        choose_project(neon)
    assert "--neon-project" in str(caught.value.hint)


def test_branches_are_equal_by_what_they_are(script, neon):
    created(script)
    branch = maker(neon).make("test_one")

    assert branch == NeonBranch(
        branch.id, branch.name, PROJECT, branch.endpoint_id, Dsn(URI), branch.branch.model_copy(update={"name": "x"})
    )
