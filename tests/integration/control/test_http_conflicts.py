"""Requests at the same time: one of two that conflict is told to come back, and readers never wait; rate limits."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest

from support.lamp import Lamp, sql, temporary_lamp, uri_of
from support.tidy import only_for_now

LOCKED = "project already has running conflicting operations, scheduling of new ones is prohibited"
ENDED = ("finished", "skipped")


@pytest.fixture(autouse=True)
def tidy(lamp: Lamp) -> Iterator[None]:
    with only_for_now(lamp):
        yield


@pytest.fixture(scope="module")
def client(lamp: Lamp) -> Iterator[httpx2.Client]:
    headers = {"authorization": f"Bearer {lamp.key}"}
    with httpx2.Client(base_url=lamp.url, headers=headers, timeout=60) as client:
        yield client


def at_once(requests: list[Callable[[], httpx2.Response]]) -> list[httpx2.Response]:
    """Send them all at the same moment."""
    line = threading.Barrier(len(requests))

    def send(request: Callable[[], httpx2.Response]) -> httpx2.Response:
        line.wait()
        return request()

    with ThreadPoolExecutor(len(requests)) as pool:
        return list(pool.map(send, requests))


def test_of_two_conflicting_changes_one_is_made(lamp: Lamp, client: httpx2.Client):
    """The other is refused with Neon's text and has made nothing, not even half."""
    project = f"/projects/{lamp.project()['project']['id']}"

    def make(name: str) -> Callable[[], httpx2.Response]:
        body = {"branch": {"name": name}, "endpoints": [{"type": "read_write"}]}
        return lambda: client.post(f"{project}/branches", json=body)

    answers = at_once([make("left"), make("right")])
    assert sorted(answer.status_code for answer in answers) == [201, 423]
    (refusal,) = [answer for answer in answers if answer.status_code == 423]
    assert refusal.json()["message"] == LOCKED
    assert set(refusal.json()) == {"request_id", "code", "message"}
    (done,) = [answer.json() for answer in answers if answer.status_code == 201]
    operations = lamp.settle(project.removeprefix("/projects/"))
    assert len(operations) == 4
    branches = client.get(f"{project}/branches").json()["branches"]
    assert {one["name"] for one in branches} == {"main", done["branch"]["name"]}
    assert len(client.get(f"{project}/endpoints").json()["endpoints"]) == 2
    assert sql(uri_of(done), "select 1") == [(1,)]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/branches", None),
        ("POST", "{branch}/roles", {"role": {"name": "r"}}),
        ("POST", "{branch}/databases", {"database": {"name": "d", "owner_name": "neondb_owner"}}),
        ("PATCH", "{branch}/databases/neondb", {"database": {"name": "d"}}),
        ("DELETE", "{branch}/databases/neondb", None),
        ("POST", "{branch}/roles/neondb_owner/reset_password", None),
        ("POST", "{endpoint}/suspend", None),
        ("POST", "{endpoint}/start", None),
        ("POST", "{endpoint}/restart", None),
        ("PATCH", "{endpoint}", {"endpoint": {"autoscaling_limit_max_cu": 1}}),
        ("DELETE", "{endpoint}", None),
        ("DELETE", "", None),
    ],
)
def test_while_operations_run_every_other_change_is_refused(
    lamp: Lamp, client: httpx2.Client, method: str, path: str, body: Any
):
    """Refused at once, and possible as soon as they have ended."""
    made = client.post("/projects", json={"project": {}}).json()
    project = f"/projects/{made['project']['id']}"
    place = project + path.format(
        branch=f"/branches/{made['branch']['id']}", endpoint=f"/endpoints/{made['endpoints'][0]['id']}"
    )
    answer = client.request(method, place, json=body)
    assert (answer.status_code, answer.json()["message"]) == (423, LOCKED)
    assert client.get(project).status_code == 200
    lamp.settle(made["project"]["id"])
    assert client.request(method, place, json=body).is_success


def test_of_many_that_want_one_name_one_gets_it(lamp: Lamp, client: httpx2.Client):
    """The rest is told that it is taken, or that the project is busy; no second one is made."""
    made = lamp.project()
    project = f"/projects/{made['project']['id']}"
    path = f"{project}/branches/{made['branch']['id']}/roles"
    answers = at_once([lambda: client.post(path, json={"role": {"name": "baker"}})] * 6)
    statuses = Counter(answer.status_code for answer in answers)
    assert statuses[201] == 1
    assert statuses[423] + statuses[409] == 5
    lamp.settle(made["project"]["id"])
    assert [one["name"] for one in client.get(path).json()["roles"]].count("baker") == 1


def test_renaming_to_the_same_name_at_once(lamp: Lamp, client: httpx2.Client):
    """Renaming needs no operation, so both requests are looked at: one is second."""
    project = lamp.project()["project"]["id"]
    branches = [lamp.branch(project, endpoint=False)["branch"]["id"] for _ in range(2)]

    def rename(branch: str) -> Callable[[], httpx2.Response]:
        return lambda: client.patch(f"/projects/{project}/branches/{branch}", json={"branch": {"name": "wanted"}})

    answers = at_once([rename(one) for one in branches])
    assert sorted(answer.status_code for answer in answers) == [200, 409]


def test_readers_do_not_wait_for_writers(lamp: Lamp, client: httpx2.Client):
    """Thirty reads beside the creation of projects are all answered, and show whole resources."""
    project = f"/projects/{lamp.project()['project']['id']}"
    paths = [project, f"{project}/branches", f"{project}/operations", "/projects?limit=400", f"{project}/endpoints"]
    reads = [lambda path=path: client.get(path) for path in paths * 6]
    writes = [lambda: client.post("/projects", json={"project": {}}) for _ in range(2)]
    answers = at_once([*writes, *reads])
    assert [answer.status_code for answer in answers] == [201] * 2 + [200] * 30
    for answer in answers[:2]:
        operations = lamp.settle(answer.json()["project"]["id"])
        assert {one["status"] for one in operations} <= set(ENDED)


def test_operations_are_told_of_as_they_go(lamp: Lamp, client: httpx2.Client):
    """The first of a request is running when it is answered, the rest is to come; each ends under its own id."""
    made = client.post("/projects", json={"project": {}}).json()
    assert [(one["action"], one["status"]) for one in made["operations"]] == [
        ("create_timeline", "running"),
        ("start_compute", "scheduling"),
    ]
    assert made["endpoints"][0]["current_state"] == "init"
    assert made["endpoints"][0]["pending_state"] == "active"
    assert made["branch"]["current_state"] == "init"
    project = f"/projects/{made['project']['id']}"
    lamp.settle(made["project"]["id"])
    for one in made["operations"]:
        ended = client.get(f"{project}/operations/{one['id']}").json()["operation"]
        assert (ended["status"], ended["failures_count"]) == ("finished", 0)
        assert ended["total_duration_ms"] > 0
    page = client.get(f"{project}/operations", params={"limit": 1}).json()
    assert [one["action"] for one in page["operations"]] == ["start_compute"]
    cursor = page["pagination"]["cursor"]
    following = client.get(f"{project}/operations", params={"cursor": cursor}).json()
    assert [one["action"] for one in following["operations"]] == ["create_timeline"]


def test_neons_rate_limits():
    """With `--rate-limits neon` more than a burst is refused: in the words that clients look for, and until when."""
    with temporary_lamp(options=("--rate-limits", "neon")) as lamp:
        headers = {"authorization": f"Bearer {lamp.key}"}
        with httpx2.Client(base_url=lamp.url, headers=headers, timeout=60) as client:
            answers = [client.get("/regions") for _ in range(200)]
            refusals = [answer for answer in answers if answer.status_code == 429]
            assert refusals
            assert {answer.status_code for answer in answers} == {200, 429}
            for answer in refusals:
                assert "rate limit" in answer.json()["message"]
                assert "too many requests" in answer.json()["message"]
                assert int(answer.headers["retry-after"]) >= 1
            # Another route has a limit of its own.
            assert client.get("/users/me").status_code == 200
