"""The scripted transport below our own clients, as users have it: sync, async, errors and waiting."""

from __future__ import annotations

import anyio
import pytest

from lamplighter import (
    APIError,
    AsyncNeon,
    Conflict,
    ConnectionFailed,
    Neon,
    NotFound,
    OperationFailed,
    RateLimited,
    UnreadableReply,
)
from lamplighter.testing import ImpossibleRequest, ScriptedTransport, Unscripted, example

PROJECT = "calm-lake-1"


@pytest.fixture
def neon(script):
    with Neon(api_key="test", transport=script, retries=0) as client:
        yield client


def test_a_reply_comes_back_as_a_model(script, neon):
    script.on("getProject", example("getProject", name="app"))

    assert neon.projects.get(PROJECT).name == "app"
    assert script.requests[0].path == {"project_id": PROJECT}


async def test_one_script_serves_the_async_client_too(script):
    script.on("getProject", example("getProject", name="app"))

    async with AsyncNeon(api_key="test", transport=script) as neon:
        names: list[str] = []

        async def get() -> None:
            names.append((await neon.projects.get(PROJECT)).name)

        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(get)

    assert names == ["app"] * 10


def test_what_the_client_sends_is_recorded(script, neon):
    script.on("createProjectBranch")

    neon.branches.create(PROJECT, name="dev", parent="br-calm-lake-1", endpoints=[{"type": "read_write"}])

    (request,) = script.requests
    assert request.body == {
        "branch": {"name": "dev", "parent_id": "br-calm-lake-1"},
        "endpoints": [{"type": "read_write"}],
    }
    script.verify()


def test_the_key_is_nowhere_in_the_script(script):
    script.on("getProject")
    with Neon(api_key="napi_very_secret", transport=script) as neon:
        neon.projects.get(PROJECT)

    assert "napi_very_secret" not in repr(script.requests) + repr(vars(script))


def test_failures_are_the_errors_that_a_server_would_raise(script, neon):
    script.fail("createProject", 409, message="project already exists", code="PROJECT_ID_ALREADY_EXISTS")

    with pytest.raises(Conflict) as caught:
        neon.projects.create(name="app")

    assert (caught.value.status, caught.value.code) == (409, "PROJECT_ID_ALREADY_EXISTS")
    assert caught.value.request_id


def test_a_rate_limit_is_waited_out(script):
    script.fail("getProject", 429, retry_after=0, times=2).on("getProject")

    with Neon(api_key="test", transport=script, retries=2) as neon:
        assert neon.projects.get(PROJECT).id

    assert len(script.requests) == 3


def test_a_rate_limit_that_lasts_is_raised(script, neon):
    script.fail("getProject", 429, retry_after=500)

    with pytest.raises(RateLimited) as caught:
        neon.projects.get(PROJECT)

    assert caught.value.retry_after == 500


@pytest.mark.parametrize("sent", [False, True])
def test_lost_connections_say_whether_the_server_may_have_acted(script, neon, sent):
    script.disconnect("createProject", sent=sent)

    with pytest.raises(ConnectionFailed) as caught:
        neon.projects.create(name="app")

    assert caught.value.sent is sent


def test_waiting_is_over_when_the_script_says_so(script, neon):
    running = {"status": "running", "action": "create_branch"}
    script.on("createProjectBranch", example("createProjectBranch", operations=[running]))
    script.on("getProjectOperation", example("getProjectOperation", **running), times=1)
    script.on("getProjectOperation", example("getProjectOperation", status="finished"))
    script.on("listProjectOperations", example("listProjectOperations", operations=[running]), times=1)
    script.on("listProjectOperations", example("listProjectOperations", operations=[{}]))

    made = neon.branches.create(PROJECT, wait=20)

    assert [operation.status for operation in made.operations] == ["finished"]


def test_an_operation_that_fails_is_an_error(script, neon):
    failed = {"status": "failed", "error": "no space left"}
    script.on("createProjectBranch", example("createProjectBranch", operations=[{"status": "running"}]))
    script.on("getProjectOperation", example("getProjectOperation", **failed))
    script.on("listProjectOperations", example("listProjectOperations", operations=[failed]))

    with pytest.raises(OperationFailed, match="no space left"):
        neon.branches.create(PROJECT, wait=20)


def test_the_pages_of_a_list(script, neon):
    def page(request):
        if "cursor" not in request.query:
            return example("listProjects", projects=[{"name": "a"}, {"name": "b"}], pagination={"cursor": "next"})
        return example("listProjects", projects=[{"name": "c"}] if request.query["cursor"] == "next" else [])

    script.on("listProjects", page)

    assert [project.name for project in neon.projects.list()] == ["a", "b", "c"]


def test_what_is_not_scripted_reaches_the_test(script, neon):
    with pytest.raises(Unscripted, match="nothing is scripted for getProject"):
        neon.projects.get(PROJECT)


async def test_what_is_not_scripted_reaches_the_test_through_tasks_too(script):
    async with AsyncNeon(api_key="test", transport=script) as neon:
        with pytest.raises(Unscripted, match="nothing is scripted for getProject"):
            await neon.projects.get(PROJECT)


def test_a_value_that_no_server_takes_is_found_here(script, neon):
    """The client itself holds nobody to limits, since a newer server may have others; a test is told."""
    script.on("createProject")

    with pytest.raises(ImpossibleRequest, match=r"project\.pg_version"):
        neon.projects.create(name="app", pg_version=9)


@pytest.mark.parametrize("content", [b"<html>", b'{"project": ', b'{"project": 1}'])
def test_a_broken_server_can_be_played(script, neon, content):
    script.on("getProject", content, checked=False)

    with pytest.raises(UnreadableReply):
        neon.projects.get(PROJECT)


def test_a_newer_server_can_be_played(script, neon):
    reply = example("getProject", project={"tomorrow": 1, "provisioner": "k9s"})
    script.on("getProject", reply, checked=False)

    assert neon.projects.get(PROJECT).provisioner == "k9s"


def test_any_failure_has_its_class(script, neon):
    script.fail("getProject", 404, times=1).fail("getProject", 418)

    with pytest.raises(NotFound):
        neon.projects.get(PROJECT)
    with pytest.raises(APIError) as caught:
        neon.projects.get(PROJECT)
    assert caught.value.status == 418


def test_one_script_for_several_clients():
    script = ScriptedTransport().on("getProject")
    for _ in range(2):
        with Neon(api_key="test", transport=script) as neon:
            neon.projects.get(PROJECT)

    assert len(script.requests) == 2
