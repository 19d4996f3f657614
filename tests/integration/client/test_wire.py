"""What the clients do when a server, or what is between, does not behave. Each through both clients, on both loops."""

import contextlib
import socket
import ssl
import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import formatdate

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from lamplighter.client import errors
from lamplighter.client.options import Timeouts
from lamplighter.client.retry import RetryPolicy
from support.both import KEY, WAYS, do, one
from support.scripted import Scripted, answer, breaks_off, drips, hangs_up, refuses, reset, says

TIME = "2026-01-31T12:00:00Z"
BRANCH = {
    "id": "br-a-b-12345678",
    "project_id": "p",
    "name": "b",
    "current_state": "ready",
    "state_changed_at": TIME,
    "creation_source": "console",
    "default": False,
    "protected": False,
    "cpu_used_sec": 0,
    "compute_time_seconds": 0,
    "active_time_seconds": 0,
    "written_data_bytes": 0,
    "data_transfer_bytes": 0,
    "created_at": TIME,
    "updated_at": TIME,
}
GOOD = {
    "branch": BRANCH,
    "annotation": {"object": {"type": "x", "id": "y"}, "value": {}},
    "endpoints": [],
    "operations": [],
    "roles": [],
    "databases": [],
}
well = says(200, GOOD)

CALLS = {
    "GET": lambda neon: neon.branches.get("p", "b"),
    "POST": lambda neon: neon.branches.create("p", name="b"),
    "PATCH": lambda neon: neon.branches.update("p", "b", name="c"),
    "PUT": lambda neon: neon.request("PUT", "/projects/p/branches/b/backup_schedule", body={"schedule": []}),
    "DELETE": lambda neon: neon.branches.delete("p", "b"),
}


@pytest.fixture(params=WAYS)
def way(request):
    return request.param


def is_good(result):
    found = result.parse()["branch"]["id"] if hasattr(result, "parse") else getattr(result, "branch", result).id
    return found == BRANCH["id"]


# What surely did nothing is sent again, whatever it was


@pytest.mark.parametrize("method", CALLS)
@pytest.mark.parametrize("status", [423, 429, 503])
def test_refusals_that_did_nothing_are_repeated(way, method, status):
    with Scripted(refuses(status), refuses(status), well) as server:
        assert is_good(one(way, server.url, CALLS[method]))
    assert server.methods == [method] * 3
    assert len({each.body for each in server.asked}) == 1


@pytest.mark.parametrize("form", ["seconds", "date"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_retry_after_is_kept_to(way, method, form):
    """The server refuses whoever comes too early, so a second refusal would show a client that does not wait."""
    seconds = 1
    allowed = []

    def step(connection, _):
        now = time.monotonic()
        if allowed and now >= allowed[0]:
            connection.sendall(answer(200, GOOD))
            return
        allowed.append(now + seconds)
        # A date has whole seconds: counted from the answer's own, whatever our clock says of either.
        date = formatdate(1_000_000_000, usegmt=True)
        later = str(seconds) if form == "seconds" else formatdate(1_000_000_000 + seconds, usegmt=True)
        body = {"code": "", "message": "too many requests"}
        connection.sendall(answer(429, body, date=date, retry_after=later))

    with Scripted(step) as server:
        assert is_good(one(way, server.url, CALLS[method]))
    assert server.methods == [method] * 2


def test_a_retry_after_that_is_too_long_is_raised(way):
    with Scripted(refuses(429, "too many requests", retry_after="121"), well) as server:
        first, second = do(way, server.url, CALLS["GET"], CALLS["GET"])
    assert isinstance(first, errors.RateLimited)
    assert first.retry_after == 121
    assert first.retryable
    # Nor does it hold up what comes after it for all that time.
    assert is_good(second)


def test_attempts_have_an_end(way):
    with Scripted(refuses(503, "later")) as server:
        (error,) = do(way, server.url, CALLS["POST"], retry=RetryPolicy(retries=3, first=0.001))
    assert isinstance(error, errors.ServerError)
    assert (error.status, error.attempts, error.retryable, error.may_have_acted) == (503, 4, True, False)
    assert len(server.asked) == 4


def test_retries_can_be_switched_off(way):
    with Scripted(refuses(503), well) as server:
        (error,) = do(way, server.url, lambda neon: neon.with_options(retries=0).branches.get("p", "b"))
    assert isinstance(error, errors.ServerError)
    assert len(server.asked) == 1


# What may have been done is not


@pytest.mark.parametrize("method", CALLS)
@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, errors.BadRequest),
        (401, errors.AuthenticationError),
        (403, errors.PermissionDenied),
        (404, errors.NotFound),
        (405, errors.NotAvailable),
        (406, errors.BadRequest),
        (409, errors.Conflict),
        (412, errors.BadRequest),
        (422, errors.BadRequest),
        (500, errors.ServerError),
        (501, errors.NotAvailable),
        (418, errors.APIError),
    ],
)
def test_other_refusals_are_raised_at_once(method, status, kind):
    body = {"code": "SOME_CODE", "message": "what is wrong", "request_id": "r-1"}
    with Scripted(says(status, body), well) as server:
        (error,) = do("sync", server.url, CALLS[method])
    assert type(error) is kind
    assert (error.status, error.code, error.message, error.request_id) == (status, "SOME_CODE", "what is wrong", "r-1")
    assert not error.retryable
    assert server.methods == [method]


@pytest.mark.parametrize("method", CALLS)
@pytest.mark.parametrize("status", [502, 504])
def test_what_a_proxy_could_not_get_is_repeated_only_when_it_is_safe(way, method, status):
    with Scripted(says(status, b"<html>", media="text/html"), well) as server:
        (result,) = do(way, server.url, CALLS[method])
    if method == "GET":
        assert is_good(result)
    else:
        assert isinstance(result, errors.ServerError)
        assert result.may_have_acted
    assert server.methods == [method] * (2 if method == "GET" else 1)


FAULTS = {
    "reset before a word of the answer": reset,
    "closed before a word of the answer": hangs_up,
    "closed within the head": breaks_off(b"HTTP/1.1 200 OK\r\ncontent-le"),
    "closed before the body": breaks_off(answer(200, length=500)),
    "closed within the body": breaks_off(answer(200, b'{"branch": ', length=500)),
    "no HTTP": breaks_off(b"SSH-2.0-OpenSSH_9.2\r\n"),
}


@pytest.mark.parametrize("method", CALLS)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_connection_that_breaks_after_the_request_was_sent(way, method, fault):
    with Scripted(FAULTS[fault], well) as server:
        first, second = do(way, server.url, CALLS[method], CALLS["GET"])
    if method == "GET":
        assert is_good(first)
    else:
        assert isinstance(first, errors.ConnectionFailed), first
        assert first.sent
        assert "look before" in first.hint
        assert server.methods.count(method) == 1
    # The pool is as good as before.
    assert is_good(second)


@pytest.mark.parametrize("method", CALLS)
def test_a_connection_that_is_reset_before_the_request_was_read(way, method):
    """We cannot know that it was not read: it is as if it had been."""
    resets = iter([True])

    def before(connection):
        if next(resets, False):
            connection.recv(1)
            return reset(connection)
        return True

    with Scripted(well, before=before) as server:
        (result,) = do(way, server.url, CALLS[method])
    if method == "GET":
        assert is_good(result)
    else:
        assert isinstance(result, errors.ConnectionFailed)
        assert result.sent
        assert server.methods == []


def test_a_connection_that_is_reset_after_the_whole_answer_is_no_fault(way):
    def step(connection, asked):
        connection.sendall(answer(200, GOOD))
        connection.shutdown(socket.SHUT_RDWR)
        return False

    with Scripted(step) as server:
        results = do(way, server.url, CALLS["POST"], CALLS["GET"])
    assert [is_good(result) for result in results] == [True] * 2
    assert server.methods.count("POST") == 1


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_refusal_counts_though_its_body_is_cut_off(way, method):
    cut = breaks_off(answer(503, b'{"message', length=500))
    with Scripted(cut, well) as server:
        assert is_good(one(way, server.url, CALLS[method]))
    assert server.methods == [method] * 2


@pytest.mark.parametrize("method", CALLS)
def test_a_server_that_is_not_there(way, method):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    (error,) = do(way, url, CALLS[method], retry=RetryPolicy(retries=2, first=0.001))
    assert isinstance(error, errors.ConnectionFailed)
    assert not error.sent
    assert error.attempts == 3
    assert f"{url}/api/v2 cannot be reached" in str(error)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_server_that_comes_up_later(way, method):
    """Connecting is tried again for any method: nothing was sent."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    server = Scripted(well)
    server._listener.close()

    def comes_up():
        server._listener = socket.create_server(("127.0.0.1", port))
        server.__enter__()

    timer = threading.Timer(0.3, comes_up)
    timer.start()
    try:
        result = one(
            way,
            f"http://127.0.0.1:{port}",
            CALLS[method],
            retry=RetryPolicy(retries=60, connects=60, first=0.05, most=0.1),
        )
    finally:
        timer.join()
        server.__exit__()
    assert is_good(result)
    assert server.methods == [method]


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_server_whose_certificate_nobody_knows_is_not_asked_again(way, method, untrusted):
    url, met = untrusted
    (error,) = do(way, url, CALLS[method])
    assert isinstance(error, errors.ConnectionFailed)
    assert not error.sent
    assert "certificate" in str(error)
    assert (error.attempts, len(met)) == (1, 1)


@pytest.fixture
def untrusted(tmp_path):
    """A server with a certificate of its own making: its URL, and the list of who connected."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=1))
    pem = made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    plain = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (tmp_path / "both.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, *plain) + pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "both.pem")
    met = []

    def handshake(connection):
        met.append(True)
        with contextlib.suppress(OSError):
            context.wrap_socket(connection, server_side=True).close()
        return False

    with Scripted(well, before=handshake) as server:
        yield server.url.replace("http://127.0.0.1", "https://localhost"), met


# Answers that are none


#: Calls whose answer is read (that of a DELETE may be empty).
READ = {**CALLS, "PUT": lambda neon: neon.auth.set_webhook("p", "b", enabled=False)}


@pytest.mark.parametrize("method", READ)
@pytest.mark.parametrize(
    ("step", "words"),
    [
        (says(200, b'{"branch": {"id": "br-'), "json_invalid"),
        (says(200, b"<html>Sign in</html>", media="text/html"), "text/html, not JSON"),
        (says(200, b" "), "json_invalid"),
    ],
    ids=["truncated JSON", "HTML", "blank"],
)
def test_a_success_that_cannot_be_read(way, method, step, words):
    with Scripted(step, well) as server:
        (error,) = do(way, server.url, READ[method])
    assert isinstance(error, errors.UnreadableReply), error
    assert words in str(error)
    assert error.may_have_acted is (method != "GET")
    assert server.methods == [method]


def test_fields_of_a_wrong_type_are_named_and_not_shown(way):
    wrong = {**GOOD, "branch": {**BRANCH, "created_at": {"not": "a time"}, "name": ["hunter2"]}}
    with Scripted(says(200, wrong)) as server:
        (error,) = do(way, server.url, CALLS["GET"])
    assert isinstance(error, errors.UnreadableReply)
    assert "branch.name" in str(error)
    assert "hunter2" not in str(error)


def test_nothing_where_something_was_deleted_already(way):
    with Scripted(says(204)) as server:
        first, second = do(way, server.url, CALLS["DELETE"], CALLS["DELETE"])
    assert (first, second) == (None, None)


def test_nothing_where_something_was_to_come(way):
    with Scripted(says(204)) as server:
        (error,) = do(way, server.url, CALLS["GET"])
    assert isinstance(error, errors.UnreadableReply)


def test_unknown_fields_and_values_of_enums_are_kept(way):
    branch = {**BRANCH, "current_state": "pondering", "mood": "good"}
    operation = {
        "id": "01234567-89ab-4def-8123-456789abcdef",
        "project_id": "p",
        "action": "make_tea",
        "status": "steeping",
        "failures_count": 0,
        "created_at": TIME,
        "updated_at": TIME,
        "total_duration_ms": 0,
    }
    with Scripted(says(200, {**GOOD, "branch": branch, "operations": [operation], "more": 1})) as server:
        created = one(way, server.url, CALLS["POST"])
    assert (created.branch.current_state, created.branch.mood, created.more) == ("pondering", "good", 1)
    assert (created.operations[0].action, created.operations[0].status) == ("make_tea", "steeping")


def test_redirects_are_not_followed(way):
    """The key would go along."""
    with Scripted(well) as elsewhere, Scripted(says(302, b"", location=elsewhere.url)) as server:
        (error,) = do(way, server.url, CALLS["GET"])
    assert isinstance(error, errors.APIError)
    assert error.status == 302
    assert elsewhere.asked == []


# Deadlines


SLOW = {
    "head": b"HTTP/1.1 200 OK\r\nx-drip: " + b"a" * 5000,
    "body": answer(200, b" " * 5000, length=100_000),
    "lines": b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 1000,
}


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("part", SLOW)
def test_slow_bytes_do_not_outlast_the_deadline(way, method, part):
    """Each byte comes well within the timeout, but there is no end to them."""
    server = Scripted(drips(lambda: server, SLOW[part]))
    with server:
        slow = lambda neon: CALLS[method](neon.with_options(deadline=0.4))  # noqa: E731

        def quick(neon):
            server.then(well)
            return CALLS["POST"](neon)

        first, second = do(way, server.url, slow, quick)
    assert isinstance(first, errors.DeadlineExceeded), first
    assert first.sent
    assert is_good(second)
    assert server.methods == [method, "POST"]


def test_the_deadline_covers_the_attempts(way):
    with Scripted(refuses(503, "busy")) as server:
        (error,) = do(way, server.url, CALLS["POST"], deadline=0.2, retry=RetryPolicy(first=0.15, retries=50))
    assert isinstance(error, errors.DeadlineExceeded)
    assert not error.sent
    assert isinstance(error.__cause__, errors.ServerError)
    assert 1 <= len(server.asked) < 6


def test_a_server_that_says_nothing_runs_into_the_timeout(way):
    server = Scripted(lambda *_: not server.pause(60))
    with server:
        get, post = do(
            way,
            server.url,
            CALLS["GET"],
            CALLS["POST"],
            timeout=Timeouts(read=0.1),
            retry=RetryPolicy(retries=1, first=0),
        )
    assert isinstance(get, errors.ConnectionFailed)
    assert isinstance(post, errors.ConnectionFailed)
    assert post.sent
    assert server.methods == ["GET", "GET", "POST"]


# What goes out


def test_the_key_goes_out_with_every_request(way):
    with Scripted(refuses(503), well) as server:
        one(way, server.url, CALLS["POST"])
    assert [each.headers["authorization"] for each in server.asked] == [f"Bearer {KEY}"] * 2
    assert server.asked[0].headers["accept"] == "application/json"
    assert server.asked[0].headers["user-agent"].startswith("lamplighter/")
    assert server.asked[0].json() == {"branch": {"name": "b"}}
    assert server.asked[0].target == "/api/v2/projects/p/branches"


def test_names_stay_one_part_of_the_path(way):
    with Scripted(well) as server:
        one(way, server.url, lambda neon: neon.roles.with_raw_response.get("p", "b", "a/../b ?é%2F"))
    assert server.asked[0].target == "/api/v2/projects/p/branches/b/roles/a%2F..%2Fb%20%3F%C3%A9%252F"


def test_sessions_that_a_server_starts_are_not_kept(way):
    with Scripted(says(200, GOOD, set_cookie="zenith=someone; Path=/")) as server:
        do(way, server.url, CALLS["GET"], CALLS["GET"])
    assert all("cookie" not in each.headers for each in server.asked)


def test_no_proxy_is_asked_for_a_server_of_this_machine(way, monkeypatch):
    with Scripted(well) as proxy, Scripted(well) as server:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.setenv("ALL_PROXY", f"http://127.0.0.1:{proxy.port}")
        assert is_good(one(way, server.url, CALLS["GET"]))
    assert proxy.asked == []


def test_any_path(way):
    with Scripted(says(200, {"answer": 42}, x_neon_ret_request_id="r-7")) as server:
        raw = one(
            way,
            server.url,
            lambda neon: neon.request("post", "/some/path", query={"a": [1, 2], "b": True}, body={"c": 1}),
        )
    assert (raw.status, raw.request_id, raw.parse()) == (200, "r-7", {"answer": 42})
    assert server.asked[0].target == "/api/v2/some/path?a=1&a=2&b=true"
    assert server.asked[0].json() == {"c": 1}


def test_a_raw_response_has_what_came(way):
    with Scripted(says(200, GOOD, x_neon_ret_request_id="r-7")) as server:
        raw = one(way, server.url, lambda neon: neon.branches.with_raw_response.get("p", "b"))
    assert raw.headers["X-Neon-Ret-Request-Id"] == "r-7"
    assert b'"br-a-b-12345678"' in raw.content
    assert raw.parse().id == BRANCH["id"]
    assert raw.parse() is raw.parse()
