"""No error shows the key, nor what a reply held: not in its text, nor in any local of any frame that it passed."""

import io
import signal
import socket
import traceback

import anyio
import httpx2
import pytest
from rich.console import Console
from rich.pretty import pretty_repr
from rich.traceback import Traceback

from lamplighter import AsyncNeon, Neon
from lamplighter.api.models.roles import RolePasswordResponse
from lamplighter.client import errors
from lamplighter.client.options import Timeouts
from support.both import WAYS
from support.scripted import Scripted, breaks_off, says

#: No local of a test may hold these, nor any line of its source say them: its own frame is in the traceback too.
KEY = "napi_" + "canary" * 8
PASSWORD = "npg_" + "canary" * 3
SECRETS = [KEY, PASSWORD, "canary" * 2]


@pytest.fixture(params=WAYS)
def way(request):
    return request.param


@pytest.fixture(autouse=True)
def key_in_the_environment(monkeypatch):
    monkeypatch.setenv("NEON_API_KEY", KEY)


@pytest.fixture
def point_at(monkeypatch):
    return lambda url: monkeypatch.setenv("NEON_API_HOST", url)


def shown(error):
    """All that a tool could show of an error, chained ones too, and those that are marked not to be shown."""
    out = io.StringIO()
    console = Console(file=out, width=4000)
    seen = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        trace = error.__traceback__
        console.print(
            Traceback.from_exception(
                type(error),
                error,
                trace,
                show_locals=True,
                locals_max_length=None,
                locals_max_string=None,
                locals_hide_dunder=False,
                max_frames=0,
            )
        )
        out.write(f"{error} {error!r} {vars(error)!r}")
        while trace is not None:
            out.write(pretty_repr(trace.tb_frame.f_locals, max_length=None, max_string=None))
            trace = trace.tb_next
        error = error.__cause__ or error.__context__
    return out.getvalue()


def leaked(text):
    """What is around a secret in the text, if there is one."""
    return next((text[max(0, text.find(each) - 200) :][:300] for each in SECRETS if each in text), None)


def caught(way, call, **options):
    """What a call raised, with its traceback."""

    async def awaited():
        async with AsyncNeon(**options) as neon:
            try:
                await call(neon)
            except Exception as error:  # noqa: BLE001 - it is what the test asks for
                return error

    if way != "sync":
        return anyio.run(awaited, backend=way)
    with Neon(**options) as neon:
        try:
            call(neon)
        except Exception as error:  # noqa: BLE001 - it is what the test asks for
            return error


def assert_nothing_shows(error, kind):
    assert isinstance(error, kind), repr(error)
    text = shown(error)
    assert not leaked(text)
    # What was looked at is a traceback with locals indeed.
    assert "project_id" in text


def reveal(neon):
    return neon.roles.reveal_password("p", "b", "r")


def create(neon):
    return neon.branches.create("p", name="b")


def test_nobody_there(way, point_at):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        point_at(f"http://127.0.0.1:{taken.getsockname()[1]}")
    assert_nothing_shows(caught(way, create, retries=0), errors.ConnectionFailed)


def test_nothing_said_in_time(way, point_at):
    server = Scripted(lambda *_: not server.pause(30))
    with server:
        point_at(server.url)
        slow = caught(way, create, timeout=Timeouts(read=0.1))
        late = caught(way, create, deadline=0.1)
    assert_nothing_shows(slow, errors.ConnectionFailed)
    assert_nothing_shows(late, errors.DeadlineExceeded)


def test_no_http(way, point_at):
    with Scripted(breaks_off(f"{KEY}\r\n\r\n".encode())) as server:
        point_at(server.url)
        assert_nothing_shows(caught(way, create), errors.ConnectionFailed)


@pytest.mark.parametrize("status", [401, 403, 429, 500])
def test_a_refusal_that_repeats_the_key(way, point_at, status):
    body = {"code": f"BAD {KEY}", "message": f"unknown key {KEY}!", "request_id": KEY}
    with Scripted(says(status, body, x_neon_ret_request_id=KEY)) as server:
        point_at(server.url)
        error = caught(way, create, retries=0)
    assert_nothing_shows(error, errors.APIError)
    assert error.message == "unknown key ***!"


@pytest.mark.parametrize(
    "body",
    [
        f'{{"password": "{PASSWORD}'.encode(),
        f'{{"password": ["{PASSWORD}"]}}'.encode(),
        f'{{"passwort": "{PASSWORD}"}}'.encode(),
        f'["{PASSWORD}"]'.encode(),
        PASSWORD.encode(),
    ],
    ids=["cut off", "of a wrong type", "misspelled", "no object", "no JSON"],
)
def test_a_revealed_password_that_cannot_be_read(way, point_at, body):
    step = says(200, body, x_neon_ret_request_id=KEY)
    del body
    with Scripted(step) as server:
        del step
        point_at(server.url)
        assert_nothing_shows(caught(way, reveal), errors.UnreadableReply)


def test_a_deadline_after_a_refusal(way, point_at):
    """The refusal is its cause, and shows no more than itself."""
    with Scripted(says(503, {"code": "", "message": KEY}, retry_after="5")) as server:
        point_at(server.url)
        error = caught(way, create, deadline=1)
    assert_nothing_shows(error, errors.DeadlineExceeded)
    assert isinstance(error.__cause__, errors.ServerError)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_cancelled_call(point_at, backend):
    async def cancelled():
        async with AsyncNeon() as neon:
            with anyio.move_on_after(0.2):
                try:
                    await create(neon)
                except BaseException as error:
                    kept.append(error)
                    text.append(shown(error))
                    raise

    kept, text = [], []
    server = Scripted(lambda *_: not server.pause(30))
    with server:
        point_at(server.url)
        anyio.run(cancelled, backend=backend)
    assert kept
    assert not leaked(text[0])
    assert "project_id" in text[0]


class Interrupted(BaseException):
    pass


def test_a_call_that_a_signal_ends(point_at):
    def interrupt(*_):
        raise Interrupted

    server = Scripted(lambda *_: not server.pause(30))
    with server:
        point_at(server.url)
        before = signal.signal(signal.SIGALRM, interrupt)
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        try:
            with Neon() as neon:
                create(neon)
        except Interrupted as error:
            text = shown(error)
        finally:
            signal.signal(signal.SIGALRM, before)
    assert not leaked(text)
    assert "project_id" in text


def test_an_error_of_the_users_own_transport_keeps_its_frames(way):
    """Only those of the HTTP library go: what the user wrote is what the user looks for."""

    def refuse_to_work(_):
        raise AssertionError("unexpected request")

    error = caught(way, create, transport=httpx2.MockTransport(refuse_to_work))
    assert_nothing_shows(error, AssertionError)
    assert "refuse_to_work" in "".join(traceback.format_exception(error))
    assert "httpx2/_client.py" not in "".join(traceback.format_exception(error))


@pytest.mark.parametrize("kind", [Neon, AsyncNeon])
@pytest.mark.parametrize(
    "options",
    [{"context": "missing"}, {"base_url": "ftp://x"}, {"base_url": "http://u:p@x"}, {"pacing": "sometimes"}],
    ids=lambda options: next(iter(options)),
)
def test_a_client_that_cannot_be_made(kind, options):
    with pytest.raises(errors.ConfigurationError) as caught:
        kind(**options)
    assert not leaked(shown(caught.value))


@pytest.mark.parametrize("kind", [Neon, AsyncNeon])
def test_a_client_shows_no_key(kind, point_at):
    point_at("http://127.0.0.1:1")
    neon = kind()
    text = f"{neon!r} {neon} {neon.server!r} {neon.server} {pretty_repr(neon)} {pretty_repr(vars(neon))}"
    assert not leaked(text)
    assert "http://127.0.0.1:1/api/v2" in str(neon)
    assert "NEON_API_KEY" in str(neon)


def test_what_a_reply_holds_is_not_in_its_repr(way, point_at):
    def revealed(neon):
        return neon.roles.with_raw_response.reveal_password("p", "b", "r")

    async def awaited():
        async with AsyncNeon() as neon:
            return await revealed(neon)

    with Scripted(says(200, {"password": PASSWORD, "secret_of_tomorrow": PASSWORD})) as server:
        point_at(server.url)
        if way == "sync":
            with Neon() as neon:
                raw = revealed(neon)
        else:
            raw = anyio.run(awaited, backend=way)
    assert PASSWORD.encode() in raw.content
    assert not leaked(repr(raw))
    reply = RolePasswordResponse.model_validate_json(raw.content)
    assert (reply.password, raw.parse()) == (PASSWORD, PASSWORD)
    assert not leaked(f"{reply!r} {reply} {pretty_repr(reply)}")
