"""Methods that are more than one operation, against a small server that can be slow or raced."""

import itertools
import json
import re
import threading
from datetime import UTC, datetime, timedelta

import httpx2
import pytest

from lamplighter.client import errors
from support.both import WAYS, do, one

EARLY = datetime(2026, 1, 31, 12, tzinfo=UTC)
ZEROS = ("cpu_used_sec", "compute_time_seconds", "active_time_seconds", "written_data_bytes", "data_transfer_bytes")


@pytest.fixture(params=WAYS)
def way(request):
    return request.param


class Cloud:
    """Branches, projects and operations in memory. `meanwhile` is run before a POST or a list is answered."""

    def __init__(self):
        self.branches, self.projects, self.operations, self.seen = {}, {}, {}, []
        self.numbers = itertools.count(1)
        self.meanwhile = lambda request: None
        self.unique_branches = True
        self.unavailable = None
        self.lock = threading.RLock()
        self.now = EARLY

    @property
    def transport(self):
        return httpx2.MockTransport(self.handle)

    def handle(self, request):
        self.seen.append(f"{request.method} {request.url.path.removeprefix('/api/v2')}")
        self.meanwhile(request)
        with self.lock:
            for pattern, handler in self.routes().items():
                method, _, path = pattern.partition(" ")
                found = re.fullmatch("/api/v2" + path, request.url.path)
                if method == request.method and found:
                    return handler(request, *found.groups())
        return httpx2.Response(404, json={"code": "", "message": "not found"})

    def routes(self):
        return {
            "GET /projects": self.list_projects,
            "POST /projects": lambda request: self.add_project(json.loads(request.content)["project"]["name"]),
            "DELETE /projects/([^/]+)": self.delete_project,
            "GET /projects/p/branches": self.list_branches,
            "POST /projects/p/branches": self.post_branch,
            "GET /projects/p/branches/([^/]+)": self.get_branch,
            "GET /projects/p/operations": self.list_operations,
            "GET /projects/[^/]+/operations/(.+)": self.get_operation,
            "GET /projects/p/endpoints/ep": lambda _: ok({"endpoint": endpoint("br-of-ep")}),
            "GET /projects/p/branches/([^/]+)/databases": self.list_databases,
            "GET /projects/p/branches/[^/]+/databases/([^/]+)": lambda _, name: ok(
                {"database": self.database("br", name)}
            ),
            "GET /projects/p/connection_uri": lambda request: ok({"uri": f"postgresql://{request.url.query.decode()}"}),
        }

    # projects

    def project(self, name, created_at=None):
        id_ = f"p-{next(self.numbers)}"
        times = dict.fromkeys(("created_at", "updated_at"), wire(created_at or self.now))
        self.projects[id_] = {
            **dict.fromkeys((*ZEROS, "active_time", "history_retention_seconds", "data_storage_bytes_hour"), 0),
            **dict.fromkeys(("branch_logical_size_limit", "branch_logical_size_limit_bytes"), 0),
            **times,
            **dict.fromkeys(("consumption_period_start", "consumption_period_end"), wire(self.now)),
            "id": id_,
            "name": name,
            "platform_id": "aws",
            "region_id": "aws-us-east-2",
            "provisioner": "k8s-neonvm",
            "pg_version": 17,
            "proxy_host": "x",
            "store_passwords": True,
            "creation_source": "console",
            "owner_id": "o",
            "default_endpoint_settings": {},
            "settings": {},
        }
        return self.projects[id_]

    def add_project(self, name):
        made = self.project(name)
        body = {"project": made, "branch": branch("br-1", "main"), "operations": [self.operation("br-1")]}
        return ok({**body, "connection_uris": [], "roles": [], "databases": [], "endpoints": []}, 201)

    def delete_project(self, _, id_):
        return ok({"project": self.projects.pop(id_)})

    def list_projects(self, request):
        search = request.url.params.get("search", "")
        found = [each for each in self.projects.values() if search in each["name"]]
        page = self.page(request, found, "cursor")
        extra = {} if self.unavailable is None else {"unavailable_project_ids": self.unavailable}
        return ok({"projects": page[0], "applications": {}, "integrations": {}, **page[1], **extra})

    # branches

    def post_branch(self, request):
        name = json.loads(request.content)["branch"]["name"]
        if self.unique_branches and any(each["name"] == name for each in self.branches.values()):
            return ok({"code": "", "message": f'branch already exists; branch_name:"{name}"'}, 409)
        made = self.add_branch(name)
        ends = "failed" if made["name"] == "bad" else "finished"
        body = {
            "branch": made,
            "operations": [self.operation(made["id"], "running", ends)],
            "endpoints": [],
            "roles": [],
        }
        return ok({**body, "databases": []}, 201)

    def add_branch(self, name, **more):
        made = branch(f"br-{next(self.numbers)}", name, **more)
        self.branches[made["id"]] = made
        return made

    def list_branches(self, request):
        search = request.url.params.get("search", "")
        page = self.page(request, [each for each in self.branches.values() if search in each["name"]], "next")
        return ok({"branches": page[0], "annotations": {}, **page[1]})

    def get_branch(self, _, id_):
        return ok({"branch": self.branches[id_], "annotation": {"object": {"type": "x", "id": "y"}, "value": {}}})

    @staticmethod
    def page(request, found, name):
        """Two at a time, each page with a cursor, the last one too: as Neon does it."""
        start = int(request.url.params.get("cursor", 0))
        items = found[start : start + 2]
        return items, {"pagination": {name: str(start + 2)}} if items else {}

    # operations

    def operation(self, branch_id, *statuses):
        id_ = f"01234567-89ab-4def-8123-{next(self.numbers):012}"
        self.operations[id_] = [branch_id, list(statuses or ("running", "finished"))]
        return self.shown(id_)

    def shown(self, id_):
        branch_id, statuses = self.operations[id_]
        status = statuses.pop(0) if len(statuses) > 1 else statuses[0]
        return {
            "id": id_,
            "project_id": "p",
            "branch_id": branch_id,
            "action": "create_branch",
            "status": status,
            "failures_count": 0,
            "created_at": wire(self.now),
            "updated_at": wire(self.now),
            "total_duration_ms": 1,
            **({"error": "the disk is full"} if status == "failed" else {}),
        }

    def list_operations(self, _):
        return ok({"operations": [self.shown(id_) for id_ in reversed(self.operations)]})

    def get_operation(self, _, id_):
        return ok({"operation": self.shown(id_)})

    # what branches have

    def list_databases(self, _, branch_id):
        names = {"br-main": ["one"], "br-of-ep": ["two"]}.get(branch_id, ["a", "b"])
        return ok({"databases": [self.database(branch_id, name) for name in names]})

    def database(self, branch_id, name):
        times = {"created_at": wire(self.now), "updated_at": wire(self.now)}
        return {**times, "branch_id": branch_id, "id": 1, "name": name, "owner_name": f"owner-of-{name}"}


def wire(moment):
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def ok(body, status=200):
    return httpx2.Response(status, json=body)


def branch(id_, name, **more):
    return {
        "id": id_,
        "project_id": "p",
        "name": name,
        "current_state": "ready",
        "creation_source": "console",
        "default": False,
        "protected": False,
        **dict.fromkeys(("created_at", "updated_at", "state_changed_at"), wire(EARLY)),
        **dict.fromkeys(ZEROS, 0),
        **more,
    }


def endpoint(branch_id):
    times = dict.fromkeys(("created_at", "updated_at"), wire(EARLY))
    return {
        **times,
        "host": "h",
        "id": "ep",
        "project_id": "p",
        "branch_id": branch_id,
        "autoscaling_limit_min_cu": 1,
        "autoscaling_limit_max_cu": 1,
        "region_id": "r",
        "type": "read_write",
        "current_state": "active",
        "settings": {},
        "pooler_enabled": False,
        "pooler_mode": "transaction",
        "disabled": False,
        "passwordless_access": True,
        "creation_source": "console",
        "proxy_host": "x",
        "suspend_timeout_seconds": 0,
        "provisioner": "x",
    }


@pytest.fixture
def cloud():
    return Cloud()


@pytest.fixture
def run(way, cloud):
    return lambda *calls: do(way, "http://localhost", *calls, transport=cloud.transport)


@pytest.fixture
def run_one(way, cloud):
    return lambda call: one(way, "http://localhost", call, transport=cloud.transport)


# branches


def test_a_branch_is_made_once(cloud, run):
    get = lambda neon: neon.branches.get_or_create("p", name="preview")  # noqa: E731
    first, second = run(get, get)
    assert (first.created, second.created) == (True, False)
    assert first.branch.id == second.branch.id
    assert first.reply.operations
    assert second.reply is None
    assert len(cloud.branches) == 1


def test_a_branch_whose_name_only_begins_so_is_another(cloud, run_one):
    others = [cloud.add_branch(name)["id"] for name in ("preview-2", "my-preview", "Preview", "preview ")]
    found = run_one(lambda neon: neon.branches.get_or_create("p", name="preview"))
    assert found.created
    assert found.branch.id not in others


def test_a_branch_is_found_on_a_later_page(cloud, run_one):
    for number in range(5):
        cloud.add_branch(f"preview-{number}")
    wanted = cloud.add_branch("preview")
    found = run_one(lambda neon: neon.branches.get_or_create("p", name="preview"))
    assert (found.created, found.branch.id) == (False, wanted["id"])


def test_a_branch_that_somebody_else_makes_in_between(cloud, run_one):
    def faster(request):
        if request.method == "POST":
            cloud.meanwhile = lambda _: None
            cloud.add_branch("preview")

    cloud.meanwhile = faster
    found = run_one(lambda neon: neon.branches.get_or_create("p", name="preview"))
    assert (found.created, len(cloud.branches)) == (False, 1)
    assert found.branch.id in cloud.branches


def test_a_conflict_about_something_else_is_raised(cloud, run):
    cloud.meanwhile = lambda request: None
    cloud.post_branch = lambda _: ok({"code": "", "message": "read-write endpoint already exists"}, 409)
    (error,) = run(lambda neon: neon.branches.get_or_create("p", name="preview"))
    assert isinstance(error, errors.Conflict)


def test_two_branches_of_a_name_are_ambiguous(cloud, run):
    ids = [cloud.add_branch("preview")["id"] for _ in range(3)]
    (error,) = run(lambda neon: neon.branches.get_or_create("p", name="preview"))
    assert isinstance(error, errors.Ambiguous)
    assert list(error.ids) == ids


def test_waiting_for_a_branch_that_somebody_else_is_making(cloud, run_one):
    made = cloud.add_branch("preview")
    mine = cloud.operation(made["id"], "running", "running", "finished")
    other = cloud.operation("br-other", "running")
    found = run_one(lambda neon: neon.branches.get_or_create("p", name="preview", wait=True))
    assert not found.created
    assert cloud.operations[mine["id"]][1] == ["finished"]
    assert f"GET /projects/p/operations/{other['id']}" not in cloud.seen


def test_a_branch_that_was_made_and_waited_for_is_shown_as_it_is_now(cloud, run_one):
    before = cloud.post_branch

    def post(request):
        answer = before(request)
        (made,) = cloud.branches
        cloud.branches[made] = {**cloud.branches[made], "current_state": "quite ready"}
        return answer

    cloud.post_branch = post
    found = run_one(lambda neon: neon.branches.get_or_create("p", name="preview", wait=True))
    assert found.created
    assert found.branch.current_state == "quite ready"
    assert [each.status for each in found.reply.operations] == ["finished"]


def test_many_at_once_get_one_branch(cloud):
    from lamplighter import Neon

    found = []

    def work(neon):
        found.append(neon.branches.get_or_create("p", name="preview"))

    with Neon(api_key="k", base_url="http://localhost", transport=cloud.transport) as neon:
        threads = [threading.Thread(target=work, args=(neon,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(found) == 8
    assert {each.branch.id for each in found} == set(cloud.branches)
    assert sum(each.created for each in found) == 1


# projects


def test_a_project_is_made_once(cloud, run):
    get = lambda neon: neon.projects.get_or_create(name="app", wait=True)  # noqa: E731
    first, second = run(get, get)
    assert (first.created, second.created) == (True, False)
    assert first.project.id == second.project.id
    assert [each.status for each in first.reply.operations] == ["finished"]


def test_a_project_whose_name_only_begins_so_is_another(cloud, run_one):
    cloud.project("app-2")
    assert run_one(lambda neon: neon.projects.get_or_create(name="app")).created


def test_two_projects_of_a_name_are_ambiguous(cloud, run):
    ids = [cloud.project("app")["id"] for _ in range(2)]
    (error,) = run(lambda neon: neon.projects.get_or_create(name="app"))
    assert isinstance(error, errors.Ambiguous)
    assert list(error.ids) == ids
    assert "POST /projects" not in cloud.seen


def test_a_list_that_is_not_whole_proves_nothing(cloud, run):
    cloud.unavailable = ["p-hidden"]
    (error,) = run(lambda neon: neon.projects.get_or_create(name="app"))
    assert isinstance(error, errors.Ambiguous)
    assert error.ids == ("p-hidden",)
    assert "POST /projects" not in cloud.seen


@pytest.mark.parametrize("seconds", [-5, 0, 5], ids=["earlier", "in the same second", "later"])
def test_a_project_that_somebody_else_makes_at_the_same_time(cloud, run_one, seconds):
    """One stays: the older; and of two of the same second that of who does not see the other."""
    theirs = []

    def at_the_same_time(request):
        if request.method == "POST":
            cloud.meanwhile = lambda _: None
            theirs.append(cloud.project("app", EARLY + timedelta(seconds=seconds))["id"])

    cloud.meanwhile = at_the_same_time
    found = run_one(lambda neon: neon.projects.get_or_create(name="app"))
    if seconds > 0:
        assert found.created
        # The other one is not ours to delete.
        assert set(cloud.projects) == {found.project.id, *theirs}
    else:
        assert not found.created
        assert [found.project.id] == theirs == list(cloud.projects)


# operations


def test_waiting_gives_operations_as_they_ended(cloud, run_one):
    first = cloud.operation("br", "scheduling", "running", "finished")
    second = cloud.operation("br", "scheduling", "skipped")
    ended = run_one(lambda neon: neon.operations.wait("p", [first["id"], second["id"]]))
    assert [(each.id, each.status) for each in ended] == [(first["id"], "finished"), (second["id"], "skipped")]


def test_a_change_can_be_waited_for(run_one):
    reply = run_one(lambda neon: neon.branches.create("p", name="b", wait=True))
    assert [each.status for each in reply.operations] == ["finished"]


def test_a_raw_change_can_be_waited_for(run_one):
    raw = run_one(lambda neon: neon.branches.with_raw_response.create("p", name="b", wait=5))
    assert raw.status == 201
    assert b'"running"' in raw.content
    assert [each.status for each in raw.parse().operations] == ["finished"]


def test_a_failed_operation_is_raised_with_its_error(cloud, run):
    bad = cloud.operation("br-x", "running", "failed")
    (error,) = run(lambda neon: neon.operations.wait("p", [bad["id"]]))
    assert isinstance(error, errors.OperationFailed)
    assert (error.operation.id, error.error) == (bad["id"], "the disk is full")
    assert "create_branch of branch br-x failed: the disk is full" in str(error)
    assert error.hint


def test_what_was_made_is_not_lost_when_waiting_fails(run):
    """The id of a branch whose endpoint did not start is in the error."""
    (error,) = run(lambda neon: neon.branches.create("p", name="bad", wait=True))
    assert isinstance(error, errors.OperationFailed)
    assert error.reply.branch.name == "bad"


def test_a_wait_has_an_end(cloud, run):
    slow = cloud.operation("br", "running")
    (error,) = run(lambda neon: neon.operations.wait("p", [slow["id"]], timeout=0.3))
    assert isinstance(error, errors.DeadlineExceeded)
    assert [each.status for each in error.operations] == ["running"]


def test_an_unknown_status_is_waited_for(cloud, run_one):
    odd = cloud.operation("br", "steeping", "finished")
    assert [each.status for each in run_one(lambda neon: neon.operations.wait("p", [odd["id"]]))] == ["finished"]


# connection strings


@pytest.fixture
def main(cloud):
    cloud.add_branch("other")
    cloud.branches["br-main"] = branch("br-main", "main", default=True)


@pytest.mark.usefixtures("main")
def test_the_only_database_of_the_default_branch_and_its_owner(cloud, run_one):
    uri = run_one(lambda neon: neon.connection_string("p"))
    assert uri == "postgresql://branch_id=br-main&database_name=one&role_name=owner-of-one&pooled=false"
    assert len(cloud.seen) == 3


@pytest.mark.usefixtures("main")
def test_the_owner_of_the_database_that_is_named(cloud, run_one):
    uri = run_one(lambda neon: neon.connection_string("p", database="d"))
    assert uri == "postgresql://branch_id=br-main&database_name=d&role_name=owner-of-d&pooled=false"
    assert len(cloud.seen) == 3


def test_those_of_the_endpoints_branch(run_one):
    uri = run_one(lambda neon: neon.connection_string("p", endpoint="ep", pooled=True))
    assert uri == "postgresql://branch_id=br-of-ep&endpoint_id=ep&database_name=two&role_name=owner-of-two&pooled=true"


def test_what_is_named_is_not_looked_up(cloud, run_one):
    run_one(lambda neon: neon.connection_string("p", database="d", role="r"))
    assert cloud.seen == ["GET /projects/p/connection_uri"]


@pytest.mark.usefixtures("main")
def test_an_empty_branch_is_not_the_default_one(cloud, run):
    """Whoever gives the value of a variable that is not set gets no string of another branch."""
    (error,) = run(lambda neon: neon.connection_string("p", branch=""))
    assert isinstance(error, ValueError)
    assert not any("connection_uri" in each for each in cloud.seen)


def test_several_databases_are_named(run):
    (error,) = run(lambda neon: neon.connection_string("p", branch="br-x", role="r"))
    assert isinstance(error, errors.Ambiguous)
    assert error.ids == ("a", "b")
    assert "2 databases: a, b" in str(error)


# lists


def test_all_pages_are_read_though_the_last_one_names_another(cloud, run_one):
    for number in range(5):
        cloud.add_branch(f"b{number}")
    found = run_one(lambda neon: neon.branches.list("p").all())
    assert [each.name for each in found] == [f"b{number}" for number in range(5)]
    assert cloud.seen == ["GET /projects/p/branches"] * 4


def test_one_page_is_one_request(cloud, run_one):
    for number in range(5):
        cloud.add_branch(f"b{number}")
    page = run_one(lambda neon: neon.branches.list("p", cursor="2").page())
    assert [each.name for each in page.items] == ["b2", "b3"]
    assert page.next == "4"
    assert page.reply.annotations == {}
    assert len(cloud.seen) == 1


def test_a_cursor_that_comes_again_is_the_end(cloud, run_one):
    cloud.add_branch("b")
    cloud.page = lambda request, found, name: (found, {"pagination": {name: "again"}})
    assert len(run_one(lambda neon: neon.branches.list("p").all())) == 2
