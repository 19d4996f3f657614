"""What a client may get wrong: each is answered in Neon's error body with the right status, and changes nothing."""

from __future__ import annotations

import base64
import json
import re
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest

from support.lamp import Lamp
from support.tidy import only_for_now

NO_BRANCH, NO_ENDPOINT = "br-no-such-branch00", "ep-no-such-endpoint0"
MEASURED = (
    "active_time_seconds",
    "compute_time_seconds",
    "cpu_used_sec",
    "data_transfer_bytes",
    "logical_size",
    "compute_last_active_at",
)
UNAUTHENTICATED = "supplied credentials do not pass authentication"


@pytest.fixture(autouse=True)
def tidy(lamp: Lamp) -> Iterator[None]:
    with only_for_now(lamp):
        yield


@pytest.fixture(scope="module")
def made(lamp: Lamp) -> dict[str, Any]:
    """One project that every test here gets wrong."""
    return lamp.project(name="sturdy")


@pytest.fixture(scope="module")
def project(made: dict[str, Any]) -> str:
    return f"/projects/{made['project']['id']}"


@pytest.fixture(scope="module")
def branch(project: str, made: dict[str, Any]) -> str:
    return f"{project}/branches/{made['branch']['id']}"


@pytest.fixture(scope="module")
def client(lamp: Lamp) -> Iterator[httpx2.Client]:
    headers = {"authorization": f"Bearer {lamp.key}"}
    with httpx2.Client(base_url=lamp.url, headers=headers, timeout=60) as client:
        yield client


@pytest.fixture(autouse=True)
def nothing_is_changed(client: httpx2.Client, project: str, branch: str) -> Iterator[None]:
    """Whatever was refused has left no trace."""

    def everything() -> dict[str, Any]:
        places = ("", "/operations", "/branches", "/endpoints")
        inner = ("/databases", "/roles")
        urls = [project + place for place in places] + [branch + place for place in inner] + ["/api_keys"]
        found = {url: client.get(url).json() for url in urls}
        for key in found["/api_keys"]:
            del key["last_used_at"], key["last_used_from_addr"]
        # The platform measures sizes and use now and then.
        for one in [*found[f"{project}/branches"]["branches"], found[project]["project"]]:
            for figure in MEASURED:
                one.pop(figure, None)
        return found

    before = everything()
    yield
    assert everything() == before


def refused(answer: httpx2.Response, status: int) -> str:
    """The message of a refusal, whose body is Neon's."""
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert set(body) == {"request_id", "code", "message"}
    assert body["request_id"] == answer.headers["x-neon-ret-request-id"]
    return str(body["message"])


@pytest.mark.parametrize(
    ("method", "path", "message"),
    [
        ("GET", "/projects/no-such-project-00000000", "project not found"),
        ("PATCH", "/projects/no-such-project-00000000", "project not found"),
        ("DELETE", "/projects/no-such-project-00000000", "project not found"),
        ("GET", "/projects/no-such-project-00000000/branches", "project not found"),
        ("GET", "{project}/branches/" + NO_BRANCH, "branch not found"),
        ("PATCH", "{project}/branches/" + NO_BRANCH, "branch not found"),
        ("POST", "{project}/branches/" + NO_BRANCH + "/set_as_default", "branch not found"),
        ("GET", "{project}/branches/" + NO_BRANCH + "/roles", "branch not found"),
        ("GET", "{project}/branches/" + NO_BRANCH + "/databases", "branch not found"),
        ("GET", "{project}/branches/" + NO_BRANCH + "/endpoints", "branch not found"),
        ("GET", "{branch}/roles/nobody", "role not found"),
        ("GET", "{branch}/roles/nobody/reveal_password", "role not found"),
        ("POST", "{branch}/roles/nobody/reset_password", "role not found"),
        ("GET", "{branch}/databases/nothing", "database not found"),
        ("PATCH", "{branch}/databases/nothing", "database not found"),
        ("GET", "{project}/endpoints/" + NO_ENDPOINT, "endpoint not found"),
        ("PATCH", "{project}/endpoints/" + NO_ENDPOINT, "endpoint not found"),
        ("POST", "{project}/endpoints/" + NO_ENDPOINT + "/start", "endpoint not found"),
        ("POST", "{project}/endpoints/" + NO_ENDPOINT + "/suspend", "endpoint not found"),
        ("POST", "{project}/endpoints/" + NO_ENDPOINT + "/restart", "endpoint not found"),
        ("GET", "{project}/operations/00000000-0000-4000-8000-000000000000", "operation not found"),
        ("GET", "{project}/connection_uri?database_name=neondb&role_name=nobody", "role not found"),
        ("GET", "{project}/connection_uri?database_name=no&role_name=neondb_owner", "database not found"),
        ("GET", "/organizations/org-no-such-00000000", "organization not found"),
        ("DELETE", "/api_keys/123456789", "api key not found"),
    ],
)
def test_unknown_ids(client: httpx2.Client, project: str, *, branch: str, method: str, path: str, message: str):
    """Neon's texts: clients match on them."""
    place = path.format(project=project, branch=branch)
    kinds = {"databases": "database", "endpoints": "endpoint", "branches": "branch"}
    kind = next((one for name, one in kinds.items() if f"/{name}/" in place.removeprefix(branch)), "project")
    body = {kind: {}} if method == "PATCH" else None
    assert refused(client.request(method, place, json=body), 404) == message


@pytest.mark.parametrize("what", ["branches/" + NO_BRANCH, "endpoints/" + NO_ENDPOINT])
def test_what_is_not_there_is_deleted_already(client: httpx2.Client, project: str, branch: str, what: str):
    """A DELETE of what is gone is a success without a body."""
    for place in (f"{project}/{what}", f"{branch}/roles/nobody", f"{branch}/databases/nothing"):
        answer = client.delete(place)
        assert (answer.status_code, answer.content) == (204, b"")
        assert answer.headers["x-neon-ret-request-id"]


DECODE = "invalid request: decode application/json: invalid: "


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/projects", {}, "project (field required)"),
        ("/projects", {"project": None}, "project ("),
        ("/projects", {"project": []}, "project ("),
        ("/projects", {"project": {"name": 7}}, "project.name ("),
        ("/projects", {"project": {"name": ""}}, "project.name ("),
        ("/projects", {"project": {"name": None}}, "project.name ("),
        ("/projects", {"project": {"name": "n" * 257}}, "project.name ("),
        ("/projects", {"project": {"pg_version": "17"}}, "project.pg_version ("),
        ("/projects", {"project": {"pg_version": 13}}, "project.pg_version ("),
        ("/projects", {"project": {"pg_version": 17.0}}, "project.pg_version ("),
        ("/projects", {"project": {"history_retention_seconds": -1}}, "project.history_retention_seconds ("),
        ("/projects", {"project": {"history_retention_seconds": 2**40}}, "project.history_retention_seconds ("),
        ("/projects", {"project": {"store_passwords": 1}}, "project.store_passwords ("),
        ("{project}/branches", {"branch": {"name": "b" * 257}}, "branch.name ("),
        ("{project}/branches", {"branch": {"parent_id": "UPPER CASE"}}, "branch.parent_id ("),
        ("{project}/branches", {"branch": {"expires_at": "tomorrow"}}, "branch.expires_at ("),
        ("{project}/branches", {"branch": {"expires_at": 1}}, "branch.expires_at ("),
        ("{project}/branches", {"endpoints": {}}, "endpoints ("),
        ("{project}/branches", {"endpoints": [{}]}, "endpoints.0.type (field required)"),
        ("{project}/branches", {"endpoints": [{"type": "write_only"}]}, "endpoints.0.type ("),
        ("{project}/endpoints", {"endpoint": {"type": "read_only"}}, "endpoint.branch_id (field required)"),
        ("{branch}/roles", {"role": {}}, "role.name (field required)"),
        ("{branch}/databases", {"database": {"name": "d"}}, "database.owner_name (field required)"),
        ("/api_keys", {"key_name": ["k"]}, "key_name ("),
        ("/api_keys", {"key_name": "k" * 65}, "key_name ("),
    ],
)
def test_bodies_of_another_shape(
    client: httpx2.Client, project: str, *, branch: str, path: str, body: Any, message: str
):
    """The answer names the first field that is wrong, as Neon's does."""
    said = refused(client.post(path.format(project=project, branch=branch), json=body), 400)
    assert said.startswith(DECODE + message)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"   ",
        b"{",
        b"project",
        b"\xff\xfe\x00",
        b'{"project": {"name": "half \\ud800 pair"}}',
        b'{"project": {"name": "a\\u0000b"}}',
        b'{"project": {"settings": {"x": NaN}}}',
        b'{"project": {"settings": {"x": Infinity}}}',
        b'{"project": {"settings": {"x": ' + b"9" * 5000 + b"}}}",
        b"[" * 100_000,
        b'{"project": {"settings": ' + b'{"a":' * 500 + b"1" + b"}" * 500 + b"}}",
        b"null",
        b'"project"',
    ],
    ids=lambda body: repr(body[:45]),
)
def test_bodies_that_are_not_json_that_can_be_kept(client: httpx2.Client, project: str, body: bytes):
    assert refused(client.patch(project, content=body), 400).startswith(DECODE)


def test_text_that_only_looks_like_that_is_fine(lamp: Lamp, client: httpx2.Client):
    """Inside a string NaN is text, and so is a backslash before `u0000`."""
    other = f"/projects/{lamp.project()['project']['id']}"
    for written, name in ((b"NaN", "NaN"), (b"Infinity", "Infinity"), (rb"a\\u0000", r"a\u0000")):
        answer = client.patch(other, content=b'{"project": {"name": "' + written + b'"}}')
        assert answer.json()["project"]["name"] == name


@pytest.mark.parametrize("size", [2 * 2**20, 10 * 2**20])
def test_a_large_body(client: httpx2.Client, project: str, size: int):
    """Refused, whether or not its length was told before, and the next request is served."""
    body = b'{"project": {"name": "' + b"n" * size + b'"}}'
    assert "larger than" in refused(client.patch(project, content=body), 413)
    pieces = (body[start : start + 65536] for start in range(0, len(body), 65536))
    assert "larger than" in refused(client.patch(project, content=pieces), 413)
    assert client.get(project).status_code == 200


def answer_on(connection: socket.socket) -> bytes:
    """One answer with a body of a told length, in however many pieces it comes."""
    received = b""
    while True:
        head, end, body = received.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: *(\d+)", head)
        if end and length and len(body) >= int(length[1]):
            return received
        piece = connection.recv(65536)
        assert piece, received
        received += piece


def test_the_rest_of_a_refused_body_is_not_taken_for_a_request(lamp: Lamp, project: str):
    """The refusal comes before the body does; what then comes is thrown away, and the connection can be used again."""
    address = urlsplit(lamp.url)
    rest = f"{address.path}{project} HTTP/1.1\r\nHost: {address.netloc}\r\nAuthorization: Bearer {lamp.key}\r\n"
    get = f"GET {rest}Connection: close\r\n\r\n".encode()
    with socket.create_connection((address.hostname, address.port), timeout=30) as connection:
        connection.sendall(f"PATCH {rest}Content-Length: 10000000\r\n\r\n".encode())
        assert answer_on(connection).startswith(b"HTTP/1.1 413 ")
        connection.sendall((get * (10_000_000 // len(get) + 1))[:10_000_000] + get)
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    assert received.startswith(b"HTTP/1.1 200 ")
    assert received.count(b"HTTP/1.1 ") == 1


def test_a_body_that_is_broken_off(lamp: Lamp, client: httpx2.Client, project: str):
    """A client that goes away in the middle of its request changes nothing and hurts nobody."""
    address = urlsplit(lamp.url)
    with socket.create_connection((address.hostname, address.port), timeout=30) as connection:
        head = f"PATCH {address.path}{project} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {lamp.key}\r\n"
        connection.sendall(head.encode() + b'Content-Length: 100\r\n\r\n{"project": {"name": "half')
    assert client.get(project).json()["project"]["name"] == "sturdy"


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("/projects?limit=0", "query: limit"),
        ("/projects?limit=401", "query: limit"),
        ("/projects?limit=ten", "query: limit"),
        ("/projects?limit=1e1", "query: limit"),
        ("/projects?limit=" + "9" * 5000, "query: limit"),
        ("/projects?org_id=Not%20An%20Id", "query: org_id"),
        ("/projects?recoverable=perhaps", "query: recoverable"),
        ("/projects?search=a%00b", "query: search"),
        ("{project}/branches?sort_by=colour", "query: sort_by"),
        ("{project}/branches?sort_order=up", "query: sort_order"),
        ("{project}/operations?limit=1001", "query: limit"),
        ("{project}/connection_uri", "query: database_name (field required)"),
        ("{project}/connection_uri?database_name=neondb", "query: role_name (field required)"),
        ("/projects/UPPER", "path: project_id"),
        ("/projects/" + "a" * 61, "path: project_id"),
        ("{project}/operations/not-a-uuid", "path: operation_id"),
        ("{project}/branches/%00", "path: branch_id"),
    ],
)
def test_parameters_of_another_type(client: httpx2.Client, project: str, path: str, place: str):
    said = refused(client.get(path.format(project=project)), 400)
    assert said.startswith(f"invalid request: decode params: {place}")


@pytest.mark.parametrize("value", ["true", "True", "1", "false", "False", "0"])
def test_booleans_as_clients_write_them(client: httpx2.Client, project: str, value: str):
    query = f"database_name=neondb&role_name=neondb_owner&pooled={value}"
    assert client.get(f"{project}/connection_uri?{query}").status_code == 200


def branch_cursor(**fields: str) -> str:
    whole = {"branch_id": NO_BRANCH, "sort_by": "updated_at", "sort_by_value": "", "sort_order": "DESC", **fields}
    return base64.b64encode(json.dumps(whole).encode()).decode()


@pytest.mark.parametrize(
    ("path", "cursor"),
    [
        ("{project}/branches", "!"),
        ("{project}/branches", "²"),
        ("{project}/branches", base64.b64encode(b"[]").decode()),
        ("{project}/branches", base64.b64encode(b"[" * 20_000).decode()),
        ("{project}/branches", base64.b64encode(b'{"branch_id": 1}').decode()),
        ("{project}/branches", branch_cursor(sort_by_value="yesterday")),
        ("{project}/branches", branch_cursor(sort_by="name", sort_by_value="main")),
        ("{project}/branches", branch_cursor(sort_order="ASC")),
        ("{project}/branches", branch_cursor(branch_id="\ud800")),
        ("{project}/branches", branch_cursor(branch_id="\x00")),
        ("{project}/operations", "yesterday"),
        ("{project}/operations", "2026-02-30T00:00:00Z"),
        ("{project}/operations", "2026-01-01"),
        ("{organization}/members", "²"),
        ("{organization}/members", "-1"),
        ("{organization}/members", "9" * 30),
    ],
)
def test_cursors_that_nobody_gave(client: httpx2.Client, made: dict[str, Any], project: str, path: str, cursor: str):
    place = path.format(project=project, organization=f"/organizations/{made['project']['org_id']}")
    assert "invalid cursor" in refused(client.get(place, params={"cursor": cursor}), 400)


@pytest.mark.parametrize(
    ("path", "name", "cursor"),
    [
        ("/projects", "projects", "zzzzzz-zzzzzz-99999999"),
        ("/projects/shared", "projects", "anything"),
        ("{project}/branches", "branches", branch_cursor(sort_by_value="1970-01-01T00:00:00+00:00")),
        ("{project}/operations", "operations", "1970-01-01T00:00:00.000000Z"),
        ("{organization}/members", "members", "999999"),
    ],
)
def test_behind_the_end_there_is_an_empty_page_and_no_cursor(
    client: httpx2.Client, made: dict[str, Any], *, project: str, path: str, name: str, cursor: str
):
    """Clients that follow cursors until there is none would go on for ever otherwise."""
    place = path.format(project=project, organization=f"/organizations/{made['project']['org_id']}")
    answer = client.get(place, params={"cursor": cursor})
    assert answer.status_code == 200
    assert answer.json()[name] == []
    assert "pagination" not in answer.json()


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer napi_wrong", "Basic YTpi", "napi_wrong", "Bearer ünïcode"])
def test_a_missing_and_a_wrong_key_are_answered_alike(lamp: Lamp, header: str):
    headers = [(b"authorization", header.encode())] if header else []
    answer = httpx2.get(f"{lamp.url}/projects", headers=headers)
    assert refused(answer, 401) == UNAUTHENTICATED


def test_a_route_that_does_not_exist(client: httpx2.Client, project: str):
    for path in ("/nowhere", f"{project}/", f"/{project}", f"{project}/branches/b/set_as_primary", "/projects/a/b/c"):
        assert "this route does not exist" in refused(client.get(path), 404)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "{project}", "DELETE, GET, HEAD, PATCH"),
        ("POST", "{project}", "DELETE, GET, HEAD, PATCH"),
        ("OPTIONS", "{project}", "DELETE, GET, HEAD, PATCH"),
        ("TRACE", "/projects", "GET, HEAD, POST"),
        ("OPTIONS", "/projects/shared", "GET, HEAD"),
        ("POST", "{branch}/roles/neondb_owner/reveal_password", "GET, HEAD"),
    ],
)
def test_a_method_that_a_route_does_not_have(
    client: httpx2.Client, project: str, *, branch: str, method: str, path: str, allowed: str
):
    """The answer lists those that it has."""
    answer = client.request(method, path.format(project=project, branch=branch))
    assert "not allowed on this route" in refused(answer, 405)
    assert answer.headers["allow"] == allowed


def test_head_is_get_without_a_body(client: httpx2.Client, project: str):
    head, get = client.head(project), client.get(project)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"] == get.headers["content-type"]
    assert head.headers["content-length"] == get.headers["content-length"]
    assert client.head("/projects/no-such-project-00000000").status_code == 404


def test_request_ids(client: httpx2.Client, project: str):
    """The client's own comes back in errors and the header, one that is no plain text is replaced."""
    answer = client.get("/projects/nope", headers={"x-request-id": "mine-1"})
    assert answer.json()["request_id"] == answer.headers["x-neon-ret-request-id"] == "mine-1"
    assert client.get(project, headers={"x-request-id": "mine-2"}).headers["x-neon-ret-request-id"] == "mine-2"
    for strange in ("x" * 129, "tab\there", ""):
        answer = client.get(project, headers={"x-request-id": strange})
        assert len(answer.headers["x-neon-ret-request-id"]) == 36


def test_two_things_of_one_name(client: httpx2.Client, project: str, branch: str, made: dict[str, Any]):
    """409 in Neon's words."""
    twice = [
        (f"{project}/branches", {"branch": {"name": "main"}}, 'branch already exists; branch_name:"main"'),
        (f"{branch}/databases", {"database": {"name": "neondb", "owner_name": "neondb_owner"}}, "database already"),
        (f"{branch}/roles", {"role": {"name": "neondb_owner"}}, "role already exists"),
        (
            f"{project}/endpoints",
            {"endpoint": {"branch_id": made["branch"]["id"], "type": "read_write"}},
            "read-write endpoint already exists",
        ),
    ]
    for path, body, message in twice:
        assert message in refused(client.post(path, json=body), 409)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("role", "r" * 64),
        ("role", "é" * 32),
        ("role", ""),
        ("role", "postgres"),
        ("role", "Neon_Superuser"),
        ("role", "pg_monitor"),
        ("role", "public"),
        ("role", "line\nbreak"),
        ("database", "d" * 64),
        ("database", ""),
        ("database", "template1"),
        ("database", "postgres"),
        ("database", "tab\t"),
    ],
)
def test_names_that_postgres_or_we_keep(client: httpx2.Client, branch: str, kind: str, name: str):
    body = {kind: {"name": name, **({"owner_name": "neondb_owner"} if kind == "database" else {})}}
    refused(client.post(f"{branch}/{kind}s", json=body), 400)


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/projects", {"project": {"region_id": "mars-north-1"}}, "unknown region"),
        ("/projects", {"project": {"default_endpoint_settings": {"autoscaling_limit_min_cu": 99}}}, "compute units"),
        ("/projects", {"project": {"default_endpoint_settings": {"suspend_timeout_seconds": 5}}}, "suspend_timeout"),
        ("/projects", {"project": {"default_endpoint_settings": {"pg_settings": {"no_such": "1"}}}}, "pg_settings"),
        ("/projects", {"project": {"settings": {"allowed_ips": {"ips": ["1.2.3.4.5"]}}}}, "is no address"),
        ("{project}/branches", {"branch": {"expires_at": "2020-01-01T00:00:00Z"}}, "must be in the future"),
        ("{project}/branches", {"branch": {"init_source": "thin air"}}, "unknown init_source"),
        ("{project}/branches", {"endpoints": [{"type": "read_write"}] * 2}, "one read_write endpoint only"),
        (
            "{project}/branches",
            {"branch": {"parent_lsn": "0/1", "parent_timestamp": "2026-01-01T00:00:00Z"}},
            "not both",
        ),
    ],
)
def test_wishes_that_contradict_themselves(client: httpx2.Client, project: str, path: str, body: Any, message: str):
    assert message in refused(client.post(path.format(project=project), json=body), 400)


def test_default_settings_that_no_endpoint_could_have(client: httpx2.Client, project: str):
    """They are refused where they are set, not where the next endpoint is made."""
    body = {"project": {"default_endpoint_settings": {"pg_settings": {"no_such_setting": "1"}}}}
    assert "invalid pg_settings" in refused(client.patch(project, json=body), 400)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("{project}/branches", {"branch": {"parent_timestamp": "2026-01-01T00:00:00Z"}}),
        ("{project}/branches", {"branch": {"parent_lsn": "0/1"}}),
        ("{project}/branches", {"branch": {"init_source": "import"}}),
        ("{project}/branches", {"branch": {"archived": True}}),
        ("/projects", {"project": {"settings": {"hipaa": True}}}),
    ],
)
def test_wishes_that_this_server_does_not_fulfil(client: httpx2.Client, project: str, path: str, body: Any):
    """Refused with a reason, not left out in silence; and not as a fault of the server that might pass."""
    answer = client.post(path.format(project=project), json=body)
    assert "not available on this server" in refused(answer, 422)
    assert answer.json()["code"] == "NOT_AVAILABLE"


def test_unknown_parents(client: httpx2.Client, project: str, branch: str, lamp: Lamp):
    """A branch of another project is as unknown as one that never was."""
    other = lamp.project()["branch"]["id"]
    for unknown in (NO_BRANCH, other):
        answer = client.post(f"{project}/branches", json={"branch": {"parent_id": unknown}})
        assert refused(answer, 404) == "branch not found"
        body = {"endpoint": {"branch_id": unknown, "type": "read_only"}}
        assert refused(client.post(f"{project}/endpoints", json=body), 404) == "branch not found"
    body = {"database": {"name": "d", "owner_name": "nobody"}}
    assert refused(client.post(f"{branch}/databases", json=body), 404) == "role not found"


def test_an_organization_that_is_not_ours(client: httpx2.Client):
    for method, body in (("GET", None), ("POST", {"project": {"org_id": "org-no-such-00000000"}})):
        params = {"org_id": "org-no-such-00000000"} if method == "GET" else {}
        answer = client.request(method, "/projects", json=body, params=params)
        assert refused(answer, 404) == "organization not found"
