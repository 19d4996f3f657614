"""The steps of a call, one by one, with a clock of the test's own."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamplighter.api.models.projects import ProjectsPage
from lamplighter.api.models.roles import RolePasswordResponse
from lamplighter.api.secret import Secret
from lamplighter.client import errors
from lamplighter.client.call import Answer, Failure, Pause, Send, World, attempts, error_of, finish, raw_response
from lamplighter.client.options import Options, Timeouts, timeouts_of
from lamplighter.client.pacing import Buckets, OwnStore, Pacer, Rate
from lamplighter.client.payload import Payload
from lamplighter.client.retry import RetryPolicy
from lamplighter.client.spec import Request, Spec

GET = Request(method="GET", path="/x", operation_id="getX", safe=True)
POST = Request(method="POST", path="/x", operation_id="makeX")
SMALL = {"account": Rate(1, 3), "route": Rate(1, 2)}


def answer(status=200, body=b"{}", request=GET, broken="", **headers):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, {"content-type": "application/json", **named}, Payload(content), request, broken=broken)


class Drive:
    """Answers Send with what it was given, one after the other, and lets time pass for Pause."""

    def __init__(self, *outcomes, takes=0.0):
        self.now = 1000.0
        self.outcomes = list(outcomes)
        self.takes = takes
        self.steps = []
        self.world = World(clock=lambda: self.now, wall=lambda: 0.0, chance=lambda: 0.0, key=Secret("napi_k"))

    def run(self, request=GET, pacer=None, **options):
        steps = attempts(request, options=Options(**options), pacer=pacer, world=self.world)
        outcome = None
        try:
            while True:
                step = steps.send(outcome)
                self.steps.append(step)
                if isinstance(step, Pause):
                    self.now += step.seconds
                    outcome = None
                else:
                    self.now += self.takes
                    outcome = self.outcomes.pop(0)
        except StopIteration as done:
            return done.value

    @property
    def sent(self):
        return [step for step in self.steps if isinstance(step, Send)]

    @property
    def pauses(self):
        return [step.seconds for step in self.steps if isinstance(step, Pause)]


def pacer(**limits):
    store = OwnStore(Buckets(**{**SMALL, **limits}))
    return Pacer(store), store


def state(store, name="getX"):
    with store as buckets:
        return buckets.levels[name].flying, buckets.levels[name].tokens


def test_a_call_that_goes_well_is_one_step():
    drive = Drive(answer(body=b'{"a": 1}'))
    assert drive.run().payload.reveal() == b'{"a": 1}'
    assert drive.steps == [Send(GET, Timeouts(), None)]


def test_waits_grow():
    drive = Drive(*[answer(503)] * 4, answer())
    assert drive.run().attempts == 5
    assert drive.pauses == [0.5, 1, 2, 4]


def test_what_the_server_asks_for_is_waited_for():
    drive = Drive(answer(429, retry_after="7"), answer(503, retry_after="2"), answer())
    drive.run(POST)
    assert drive.pauses == [7, 2]


def test_the_last_refusal_is_raised():
    drive = Drive(answer(503, {"message": "a"}), answer(429, {"message": "b"}))
    with pytest.raises(errors.RateLimited, match="b") as caught:
        drive.run(POST, retry=RetryPolicy(retries=1))
    assert caught.value.attempts == 2
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


@pytest.mark.parametrize(("request_", "times"), [(GET, 2), (POST, 1)])
def test_what_may_have_arrived_is_repeated_only_when_it_is_safe(request_, times):
    drive = Drive(Failure("it broke", sent=True), answer())
    if times == 1:
        with pytest.raises(errors.ConnectionFailed, match="it broke") as caught:
            drive.run(request_)
        assert caught.value.sent
    else:
        drive.run(request_)
    assert len(drive.sent) == times


def test_what_never_left_is_repeated():
    drive = Drive(Failure("refused", sent=False), answer())
    drive.run(POST)
    assert len(drive.sent) == 2


@given(
    outcomes=st.lists(
        st.sampled_from([429, 423, 503, 500, 502, 504, 400, "sent", "unsent", "broken", "late"]), max_size=9
    )
)
def test_no_change_is_repeated_that_could_have_been_made(outcomes):
    """Whatever comes in whatever order: a POST is sent again only after what says that it did nothing."""
    made = {
        "sent": Failure("x", sent=True),
        "unsent": Failure("x", sent=False),
        "broken": answer(broken="x"),
        "late": Failure("", sent=True, late=True),
    }
    drive = Drive(*(made.get(each) or answer(each) for each in outcomes), answer())
    try:
        drive.run(POST, deadline=1e9)
    except errors.NeonError as error:
        assert not isinstance(error, errors.UnreadableReply)  # noqa: PT017 - both ways are right
    before_the_last = outcomes[: len(drive.sent) - 1]
    assert set(before_the_last) <= {429, 423, 503, "unsent"}


def test_what_would_be_the_same_again_is_not_repeated():
    drive = Drive(Failure("certificate verify failed", sent=False, lasting=True))
    with pytest.raises(errors.ConnectionFailed, match="certificate"):
        drive.run()
    assert len(drive.sent) == 1


# Deadlines


def test_a_send_is_told_what_the_deadline_leaves():
    drive = Drive(answer(503), answer(), takes=1)
    drive.run(deadline=10)
    assert [step.left for step in drive.sent] == [10, 10 - 1 - 0.5]


def test_a_wait_that_would_outlast_the_deadline_is_not_begun():
    drive = Drive(answer(503, retry_after="30"))
    with pytest.raises(errors.DeadlineExceeded) as caught:
        drive.run(POST, deadline=10)
    assert not caught.value.sent
    assert isinstance(caught.value.__cause__, errors.ServerError)
    assert drive.pauses == []


def test_a_request_that_the_deadline_cut_off_may_have_acted():
    drive = Drive(Failure("", sent=True, late=True))
    with pytest.raises(errors.DeadlineExceeded, match=r"makeX .*10 s") as caught:
        drive.run(POST, deadline=10)
    assert caught.value.sent
    assert "look before" in caught.value.hint


@pytest.mark.parametrize("status", [500, 502, 504, 520])
def test_a_server_that_failed_may_have_acted_and_says_so(status):
    """Not for what only reads, nor for 503, which did nothing."""
    with pytest.raises(errors.ServerError) as caught:
        Drive(answer(status, request=POST)).run(POST)
    assert "look before" in caught.value.hint
    with pytest.raises(errors.ServerError) as caught:
        Drive(*[answer(status)] * 9).run()
    assert caught.value.hint is None
    with pytest.raises(errors.ServerError) as caught:
        Drive(*[answer(503, request=POST)] * 9).run(POST)
    assert caught.value.hint is None


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (422, "NOT_AVAILABLE", errors.NotAvailable),
        (422, "BRANCHES_LIMIT_EXCEEDED", errors.BadRequest),
        (501, "", errors.NotAvailable),
    ],
)
def test_what_a_server_lacks_is_one_error_in_whole_and_in_part(status, code, kind):
    with pytest.raises(kind) as caught:
        Drive(answer(status, {"code": code, "message": "no"})).run()
    assert (caught.value.status, caught.value.code) == (status, code)


def test_waiting_for_a_turn_counts_too():
    line, store = pacer()
    for _ in range(2):
        line.enter("getX", 1000.0)
    drive = Drive(answer())
    with pytest.raises(errors.DeadlineExceeded):
        drive.run(pacer=line, deadline=5)
    assert drive.sent == []
    assert drive.now == 1005
    assert state(store)[0] == 2


# Turns


def test_a_turn_ends_with_its_answer():
    line, store = pacer()
    Drive(answer()).run(pacer=line)
    assert state(store) == (0, 1)


def test_a_request_that_never_left_costs_nothing():
    line, store = pacer()
    with pytest.raises(errors.ConnectionFailed):
        Drive(Failure("x", sent=False)).run(pacer=line, retry=RetryPolicy(retries=0))
    assert state(store) == (0, 2)


def test_a_call_waits_for_its_turn():
    line, _ = pacer()
    drive = Drive(*[answer()] * 3)
    for _ in range(3):
        drive.run(pacer=line)
    assert drive.pauses == pytest.approx([1], rel=1e-5)


def test_a_refusal_holds_every_call():
    line, _ = pacer()
    drive = Drive(answer(429, retry_after="7"), answer(), answer())
    steps = attempts(GET, options=Options(), pacer=line, world=drive.world)
    assert isinstance(next(steps), Send)
    assert steps.send(answer(429, retry_after="7")).seconds == 7
    other = attempts(POST, options=Options(), pacer=line, world=drive.world)
    assert next(other).seconds == pytest.approx(7)


@pytest.mark.parametrize("where", ["in the line", "while it is sent", "between attempts"])
def test_a_call_that_is_given_up_leaves_nothing(where):
    line, store = pacer()
    drive = Drive()
    if where == "in the line":
        taken = [line.enter("getX", 1000.0) for _ in range(2)]
    steps = attempts(GET, options=Options(), pacer=line, world=drive.world)
    step = next(steps)
    if where == "between attempts":
        step = steps.send(answer(503))
    assert isinstance(step, Send if where == "while it is sent" else Pause)
    steps.close()
    assert not line._waiting
    if where == "in the line":
        assert state(store)[0] == len(taken)
    else:
        # It may have arrived: its token is gone.
        assert state(store) == (0, 1)


# What answers mean


@given(body=st.binary(max_size=40) | st.recursive(st.none() | st.text(), lambda each: st.dictionaries(st.text(), each)))
def test_any_body_makes_an_error(body):
    error = error_of(answer(418, body if isinstance(body, bytes) else json.dumps(body).encode()))
    assert type(error) is errors.APIError
    assert error.message


def test_an_error_has_what_the_server_said():
    error = error_of(answer(422, {"code": "BRANCHES_LIMIT_EXCEEDED", "message": "too many", "request_id": "r"}))
    assert isinstance(error, errors.BadRequest)
    assert (error.code, error.message, error.request_id) == ("BRANCHES_LIMIT_EXCEEDED", "too many", "r")


def test_the_key_is_struck_out():
    world = Drive().world
    error = error_of(answer(401, {"code": "napi_k", "message": "bad napi_k", "request_id": "napi_k"}), hide=world.hide)
    assert "napi_k" not in f"{error} {error.code} {error.request_id}"


PAGE = Spec(id="listProjects", method="GET", path="/projects", reply=ProjectsPage, safe=True)
PASSWORD = Spec(id="reveal", method="GET", path="/x", reply=RolePasswordResponse, unwrap="password", safe=True)


def test_a_field_can_be_all_that_is_given():
    assert finish(PASSWORD, answer(body={"password": "p"})) == "p"


def test_a_list_needs_no_model():
    spec = Spec(id="x", method="GET", path="/x", reply=list[RolePasswordResponse])
    assert [each.password for each in finish(spec, answer(body=[{"password": "p"}]))] == ["p"]


def test_where_nothing_comes_back_nothing_is_read():
    assert finish(Spec(id="x", method="POST", path="/x"), answer(body=b"<html>")) is None


def test_bytes_are_given_as_they_are():
    spec = Spec(id="x", method="GET", path="/x", reply_media="application/octet-stream")
    assert finish(spec, answer(body=b"\x00\xff")) == b"\x00\xff"


@pytest.mark.parametrize("status", [200, 204])
def test_no_content_is_none_where_it_may_be(status):
    spec = Spec(id="x", method="DELETE", path="/x", reply=RolePasswordResponse, no_content=True)
    assert finish(spec, answer(status, b"")) is None


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "empty"),
        (b'{"password": "hunter2', "json_invalid"),
        (b'{"password": ["hunter2"]}', "password (string_type)"),
        (b'{"pass": "hunter2"}', "password (missing)"),
    ],
)
def test_a_reply_that_cannot_be_read_says_where_and_not_what(body, words):
    with pytest.raises(errors.UnreadableReply) as caught:
        finish(PASSWORD, answer(body=body))
    assert words in str(caught.value)
    assert "hunter2" not in str(caught.value) + repr(vars(caught.value))
    assert caught.value.payload.reveal() == body
    assert caught.value.__context__ is None


def test_a_raw_response_is_read_once_and_shows_nothing():
    read = []
    raw = raw_response(answer(body={"password": "hunter2"}), lambda: read.append(1))
    raw.parse()
    raw.parse()
    assert read == [1]
    assert repr(raw) == "<RawResponse 200 getX <23 bytes>>"
    assert repr(answer(body={"password": "hunter2"}, x="napi_k")).count("hunter2") == 0
    assert "napi_k" not in repr(answer(x="napi_k"))


@pytest.mark.parametrize(
    ("given_", "wanted"),
    [(None, Timeouts()), (5, Timeouts(connect=5, read=5)), (Timeouts(read=None), Timeouts(connect=10, read=None))],
)
def test_timeouts_are_a_number_or_both(given_, wanted):
    assert timeouts_of(given_) == wanted
