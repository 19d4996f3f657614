"""The scripted transport as any HTTP client sees it: what it answers, what it records, what it objects to."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import anyio
import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from lamplighter.api.operations import OPERATIONS, Operation
from lamplighter.testing import (
    Answer,
    ImpossibleReply,
    ImpossibleRequest,
    ScriptedTransport,
    SentRequest,
    Unscripted,
    Unused,
    example,
)
from lamplighter.testing.examples import build
from lamplighter.testing.transport import EXAMPLE

BASE_URL = "https://console.example.test/api/v2"
BRANCHES = "/projects/calm-lake-1/branches"


def request_for(operation: Operation) -> httpx2.Request:
    """The least request that the contract allows for an operation."""
    path = operation.path
    query: dict[str, object] = {}
    for parameter in operation.parameters:
        if parameter.where == "path":
            path = path.replace(f"{{{parameter.name}}}", str(build(parameter.type)))
        elif parameter.required:
            query[parameter.name] = build(parameter.type) or ["example"]
    url = BASE_URL + path
    if operation.body is None:
        return httpx2.Request(operation.method, url, params=query)
    if operation.body_media != "application/json":
        return httpx2.Request(operation.method, url, params=query, files={"zip": b"PK"}, data={"runtime": "nodejs24"})
    return httpx2.Request(operation.method, url, params=query, json=build(operation.body))


@pytest.mark.parametrize("name", list(OPERATIONS))
def test_every_operation_answers_with_its_example(name, script, http):
    """For each of the operations of the contract: the least request is taken, and the least reply comes back."""
    operation = OPERATIONS[name]
    script.on(name, example(name) if operation.reply is not None else EXAMPLE)

    answer = http.send(request_for(operation))

    assert answer.status_code == operation.status
    assert answer.headers["x-neon-ret-request-id"]
    if operation.reply is not None:
        TypeAdapter(operation.reply).validate_json(answer.content, strict=True)
    assert [request.operation_id for request in script.requests] == [name]


@pytest.mark.parametrize("name", list(OPERATIONS))
def test_every_operation_can_fail(name, script, http):
    script.fail(name, 409, message="branch already exists", code="TAKEN")

    answer = http.send(request_for(OPERATIONS[name]))

    assert answer.status_code == 409
    assert answer.json() == {"message": "branch already exists", "code": "TAKEN"}


def test_a_path_below_any_base_is_understood(script):
    script.on("listSharedProjects")
    for base in ("http://127.0.0.1:7000/api/v2", "https://proxy.example.test/neon/api/v2/"):
        with httpx2.Client(transport=script, base_url=base) as client:
            assert client.get("projects/shared").status_code == 200
    assert {request.operation_id for request in script.requests} == {"listSharedProjects"}


# What is recorded


def test_a_request_is_recorded_without_its_key(script, http):
    script.on("createProjectBranch")
    http.post(BRANCHES, json={"branch": {"name": "dev"}}, headers={"authorization": "Bearer napi_secret"})

    (request,) = script.requests_of("createProjectBranch")

    assert request.path == {"project_id": "calm-lake-1"}
    assert request.body == {"branch": {"name": "dev"}}
    assert request.query == {}
    assert "napi_secret" not in repr(request) + repr(vars(script)) + repr(script)


def test_names_in_the_path_are_decoded(script, http):
    script.on("getProjectBranchRole")
    http.get(f"{BRANCHES}/br-1/roles/a%2Fb%20c")

    assert script.requests[0].path["role_name"] == "a/b c"


def test_a_parameter_that_comes_several_times_is_a_list(script, http):
    script.on("getConsumptionHistoryPerBranchV2")
    times = {"from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z", "granularity": "daily"}
    rest = {"org_id": "org-1", "metrics": ["a", "b"], "project_ids": "calm-lake-1"}
    http.get("/consumption_history/v2/branches", params={**times, **rest})

    assert script.requests[0].query["metrics"] == ["a", "b"]
    assert script.requests[0].query["project_ids"] == "calm-lake-1"


def test_requests_of_an_unknown_operation_are_refused(script):
    with pytest.raises(ValueError, match="did you mean createProject"):
        script.requests_of("createProjct")


# The order of answers


def test_answers_come_in_their_order_and_then_no_more(script, http):
    script.sequence("countProjectBranches", {"count": 1}, {"count": 2})

    assert [http.get(f"{BRANCHES}/count").json()["count"] for _ in range(2)] == [1, 2]
    with pytest.raises(Unscripted, match="countProjectBranches was asked 3 times, and the script has 2 answers"):
        http.get(f"{BRANCHES}/count")


def test_after_answers_for_some_requests_comes_the_one_for_all_others(script, http):
    script.fail("countProjectBranches", 503, times=2).on("countProjectBranches", {"count": 5})

    assert [http.get(f"{BRANCHES}/count").status_code for _ in range(4)] == [503, 503, 200, 200]


def test_a_later_line_takes_the_place_of_one_that_answers_all_requests(script, http):
    script.on("countProjectBranches", {"count": 1}).on("countProjectBranches", {"count": 2})

    assert http.get(f"{BRANCHES}/count").json() == {"count": 2}


def test_a_sequence_may_hold_failures(script, http):
    refused = Answer({"code": "", "message": "slow down"}, status=429, headers={"retry-after": "1"})
    script.sequence("countProjectBranches", refused, {"count": 1})

    answers = [http.get(f"{BRANCHES}/count") for _ in range(2)]

    assert [answer.status_code for answer in answers] == [429, 200]
    assert answers[0].headers["retry-after"] == "1"


def test_an_answer_for_no_request_is_refused(script):
    with pytest.raises(ValueError, match="times=0"):
        script.on("getProject", times=0)


# Answers made for a request


def test_a_callable_answers_for_the_request(script, http):
    script.on("createProjectBranch", lambda request: example("createProjectBranch", branch=request.body["branch"]))

    answer = http.post(BRANCHES, json={"branch": {"name": "dev", "parent_id": "br-1"}}).json()

    assert (answer["branch"]["name"], answer["branch"]["parent_id"]) == ("dev", "br-1")


def test_a_callable_may_give_a_status_and_may_raise(script, http):
    def answer(request: SentRequest):
        if request.path["project_id"] == "gone-1":
            return Answer({"code": "", "message": "project not found"}, status=404)
        raise httpx2.ReadTimeout("too slow")

    script.on("getProject", answer)

    assert http.get("/projects/gone-1").status_code == 404
    with pytest.raises(httpx2.ReadTimeout):
        http.get("/projects/slow-1")


def test_a_callable_that_answers_what_no_server_says_is_found_out(script, http):
    script.on("countProjectBranches", lambda _: {"count": "many"})

    with pytest.raises(ImpossibleReply, match="count: input should be a valid integer"):
        http.get(f"{BRANCHES}/count")


def test_a_callable_says_its_status_itself(script):
    with pytest.raises(ValueError, match="return Answer"):
        script.on("getProject", lambda _: None, status=404)


# Failures


@pytest.mark.parametrize(
    ("sent", "timeout", "error"),
    [
        (False, False, httpx2.ConnectError),
        (False, True, httpx2.ConnectTimeout),
        (True, False, httpx2.ReadError),
        (True, True, httpx2.ReadTimeout),
    ],
)
def test_connections_fail_before_and_after_the_request_left(script, http, sent, timeout, error):
    script.disconnect("countProjectBranches", sent=sent, timeout=timeout, times=1).on("countProjectBranches")

    with pytest.raises(error) as caught:
        http.get(f"{BRANCHES}/count")
    assert caught.value.request.url.path.endswith("/count")
    assert http.get(f"{BRANCHES}/count").status_code == 200


def test_a_failure_may_say_when_to_come_back(script, http):
    script.fail("countProjectBranches", 429, retry_after=3)

    answer = http.get(f"{BRANCHES}/count")

    assert answer.headers["retry-after"] == "3"
    assert "rate limit" in answer.json()["message"]


def test_a_success_is_no_failure(script):
    with pytest.raises(ValueError, match="200 is no failure"):
        script.fail("getProject", 200)


# What is objected to


def test_what_nobody_scripted_says_what_to_write(script, http):
    script.on("getProject")

    with pytest.raises(Unscripted) as caught:
        http.get(f"{BRANCHES}/count")

    assert isinstance(caught.value, AssertionError)
    assert "transport.on('countProjectBranches', reply=example('countProjectBranches'))" in str(caught.value)
    assert f"GET /api/v2{BRANCHES}/count" in str(caught.value)
    assert "scripted besides: getProject" in str(caught.value)


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/nothing"), ("PUT", "/projects"), ("GET", "/projects//branches")]
)
def test_what_is_no_operation_is_refused(http, method, path):
    with pytest.raises(Unscripted, match="is no operation of Neon's API"):
        http.request(method, path)


@pytest.mark.parametrize(
    ("reply", "fault"),
    [
        ({}, "count: field required"),
        ({"count": "1"}, "count: input should be a valid integer"),
        ({"count": 1, "cuont": 2}, "cuont: there is no such field; known are: count"),
        ({"count": None}, "count: input should be a valid integer"),
        ([], "should be an object"),
        (None, r"its body is missing; example\('countProjectBranches'\) makes one"),
        (b"<html>", "JSON, not with bytes"),
        ({"count": {1}}, "set has no form in JSON"),
    ],
)
def test_a_reply_that_no_server_gives_is_a_fault_of_the_test(script, fault, reply):
    with pytest.raises(ImpossibleReply, match=fault):
        script.on("countProjectBranches", reply)


def test_faults_deep_in_a_reply_say_where_they_are(script):
    wrong = example("listProjectBranches", branches=[{}, {"current_stat": "ready", "created_at": "yesterday"}])

    with pytest.raises(ImpossibleReply, match=r"branches\.1\.created_at: input should be a time such as"):
        script.on("listProjectBranches", wrong)


@pytest.mark.parametrize("status", [100, 202, 204, 302, 700])
def test_a_status_that_the_operation_does_not_have_is_refused(script, status):
    with pytest.raises(ImpossibleReply):
        script.on("countProjectBranches", {"count": 1}, status=status)


def test_an_empty_answer_where_the_contract_has_one(script, http):
    script.on("deleteProjectBranch", None, status=204)

    answer = http.delete(f"{BRANCHES}/br-1")

    assert (answer.status_code, answer.content) == (204, b"")


def test_an_operation_without_a_reply_has_none(script):
    with pytest.raises(ImpossibleReply, match="has no body"):
        script.on("deleteProjectBranchBucket", {"bucket": "x"})


def test_an_error_of_its_own_kind_is_held_to_its_model(script, http):
    script.on("getProjectBranchStorage", {"code": "", "message": "off", "reason": "region_unavailable"}, status=404)

    assert http.get(f"{BRANCHES}/br-1/storage").json()["reason"] == "region_unavailable"
    with pytest.raises(ImpossibleReply, match="reason: input should be"):
        script.on("getProjectBranchStorage", {"code": "", "message": "off", "reason": "no idea"}, status=404)


def test_unchecked_answers_are_sent_as_they_are(script, http):
    script.on("countProjectBranches", {"count": "many"}, checked=False, times=1)
    script.on("countProjectBranches", b'{"count": ', checked=False, times=1)
    script.on("countProjectBranches", b"<html>", headers={"content-type": "text/html"}, status=202, checked=False)

    answers = [http.get(f"{BRANCHES}/count", params={"newer": "1"}) for _ in range(3)]

    assert answers[0].json() == {"count": "many"}
    assert answers[1].content == b'{"count": '
    assert (answers[2].status_code, answers[2].headers["content-type"]) == (202, "text/html")


@pytest.mark.parametrize(
    ("method", "path", "options", "fault"),
    [
        ("GET", "/projects?limit=0", {}, "query parameter limit: input should be greater than or equal to 1"),
        ("GET", "/projects?limit=ten", {}, "query parameter limit"),
        ("GET", "/projects?limit=1&limit=2", {}, "query parameter limit was sent 2 times"),
        ("GET", "/projects?cursr=1", {}, "there is no query parameter cursr; known are: cursor, limit"),
        ("GET", "/projects/UPPER", {}, "path parameter project_id"),
        ("GET", "/projects/p/connection_uri?role_name=r", {}, "query parameter database_name is missing"),
        ("GET", "/projects", {"json": {}}, "it takes no body"),
        ("POST", "/projects", {}, "its body is missing"),
        ("POST", "/projects", {"content": b"{}"}, "its body is application/json, and none was sent"),
        ("POST", "/projects", {"json": {"name": "x"}}, "project: field required"),
        ("POST", "/projects", {"json": {"project": {"nmae": "x"}}}, "project.nmae: there is no such field"),
        ("POST", "/projects", {"json": {"project": {"name": None}}}, "project.name: input should be a valid string"),
        ("POST", "/projects", {"json": {"project": {"pg_version": 12}}}, "project.pg_version: input should be"),
    ],
)
def test_a_request_that_no_server_takes_is_a_fault_of_the_client(http, script, *, method, path, options, fault):
    script.on("listProjects").on("createProject").on("getProject").on("getConnectionURI")

    with pytest.raises(ImpossibleRequest, match=fault):
        http.request(method, path, **options)


def test_values_of_a_wrong_request_are_not_shown(script, http):
    script.on("createProject")

    with pytest.raises(ImpossibleRequest) as caught:
        http.post("/projects", json={"project": {"name": ["hunter2"]}})

    assert "hunter2" not in str(caught.value)


def test_a_refused_request_need_not_be_right(script, http):
    """A test of what happens with a 400 sends what earns one."""
    script.fail("createProject", 400, message="invalid request")

    assert http.post("/projects", json={"project": {"name": ""}}).status_code == 400


# At the end


def test_verify_is_content_when_all_was_asked_for(script, http):
    script.on("countProjectBranches", times=1).on("getProject")
    http.get(f"{BRANCHES}/count")

    script.verify()


def test_verify_names_what_nobody_asked_for(script, http):
    script.sequence("countProjectBranches", {"count": 1}, {"count": 2}, EXAMPLE)
    http.get(f"{BRANCHES}/count")

    with pytest.raises(Unused, match=r"countProjectBranches \(2 more\)"):
        script.verify()


def test_verify_raises_again_what_was_caught(script, http):
    with pytest.raises(Unscripted):
        http.get(f"{BRANCHES}/count")

    with pytest.raises(Unscripted, match="countProjectBranches"):
        script.verify()


# Threads and tasks


def test_many_threads_share_one_script(script, http):
    """Every answer is given once: none is lost and none is given twice."""
    script.sequence("countProjectBranches", *({"count": number} for number in range(200)))
    start = threading.Barrier(8)

    def ask(_: int) -> list[int]:
        start.wait(10)
        return [http.get(f"{BRANCHES}/count").json()["count"] for _ in range(25)]

    with ThreadPoolExecutor(8) as pool:
        counts = [count for found in pool.map(ask, range(8)) for count in found]

    assert sorted(counts) == list(range(200))
    assert len(script.requests) == 200
    script.verify()


async def test_many_tasks_share_one_script(script):
    script.sequence("countProjectBranches", *({"count": number} for number in range(50)))
    counts: list[int] = []

    async with httpx2.AsyncClient(transport=script, base_url=BASE_URL) as client:

        async def ask() -> None:
            counts.append((await client.get(f"{BRANCHES}/count")).json()["count"])

        async with anyio.create_task_group() as tasks:
            for _ in range(50):
                tasks.start_soon(ask)

    assert sorted(counts) == list(range(50))


async def test_a_loop_of_requests_can_be_cancelled(script):
    """Code that polls must not hold the event loop for ever, because no request of a script takes time."""
    script.on("countProjectBranches")
    async with httpx2.AsyncClient(transport=script, base_url=BASE_URL) as client:
        with anyio.move_on_after(0.05) as scope:
            while True:
                await client.get(f"{BRANCHES}/count")
    assert scope.cancelled_caught


@settings(max_examples=50)
@given(
    body=st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_any_json_as_a_body_is_recorded_as_it_was(body):
    script = ScriptedTransport().fail("createProject", 400)
    with httpx2.Client(transport=script, base_url=BASE_URL) as client:
        client.post("/projects", content=json.dumps(body), headers={"content-type": "application/json"})

    assert script.requests[0].body == body


# A part of a path that is one dot or two goes away on its way, escaped or not (RFC 3986, section 5.2.4).
@given(name=st.text(min_size=1).filter(lambda name: name not in {".", ".."}))
def test_any_name_in_a_path_is_read_as_it_was(name):
    from urllib.parse import quote

    script = ScriptedTransport().on("getProjectBranchRole", checked=False)
    path = f"{BASE_URL}{BRANCHES}/br-1/roles/{quote(name, safe='', errors='surrogatepass')}"
    with httpx2.Client(transport=script) as client:
        client.get(path)

    assert script.requests[0].path["role_name"] == name
