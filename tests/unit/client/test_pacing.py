import heapq
import itertools
import math
import threading
from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamplighter.client.pacing import WHOLE, Bucket, Buckets, OwnStore, Pacer, Rate

SMALL = {"account": Rate(7, 20), "route": Rate(4, 5), "routes": {"createOrgApiKey": Rate(1, 2)}}


@dataclass
class Server:
    """Counts as Neon does: a request takes a token of its account and one of its route when it arrives."""

    buckets: Buckets
    tokens: dict[str, float] = field(default_factory=dict)
    at: dict[str, float] = field(default_factory=dict)

    def arrives(self, route, now):
        for name in (WHOLE, route):
            rate = self.buckets.rate_of(name)
            before = self.tokens.get(name, rate.capacity)
            passed = now - self.at.get(name, now)
            self.tokens[name] = min(rate.capacity, before + passed * rate.per_second)
            self.at[name] = now
        if min(self.tokens[WHOLE], self.tokens[route]) < 1:
            return False
        self.tokens[WHOLE] -= 1
        self.tokens[route] -= 1
        return True


class Simulation:
    """Requests, a server and time. `requests` are (when, route, seconds to arrive, seconds to be answered)."""

    def __init__(self, requests, buckets):
        self.server = Server(Buckets(**buckets))
        self.pacer = Pacer(OwnStore(Buckets(**buckets)))
        self.events = []
        self.numbers = itertools.count()
        self.now = 0.0
        self.refused = 0
        self.sent = {}
        self.looks = 0
        self.naps = {}
        for number, (when, *request) in enumerate(requests):
            self.at(when, self.enters, number, *request)

    def at(self, when, what, *arguments):
        heapq.heappush(self.events, (when, next(self.numbers), what, arguments))

    def run(self):
        while self.events:
            self.now, _, what, arguments = heapq.heappop(self.events)
            what(*arguments)
        return self

    def enters(self, number, route, there, back):
        turn = self.pacer.enter(route, self.now)
        turn.listen(lambda: self.at(self.now, self.looks_again, turn, number, there, back, self.nap(number)))
        self.looks_again(turn, number, there, back, self.nap(number))

    def nap(self, number):
        """Each sleep has a number: being woken ends it, so that its alarm does not ring any more."""
        self.naps[number] = next(self.numbers)
        return self.naps[number]

    def looks_again(self, turn, number, there, back, nap):
        if number in self.sent or self.naps[number] != nap:
            return
        self.looks += 1
        left = self.pacer.wait(turn, self.now)
        if left is None:
            self.sent[number] = self.now
            self.at(self.now + there, self.arrives, turn)
            self.at(self.now + there + back, self.pacer_hears, turn)
        else:
            self.at(self.now + left, self.looks_again, turn, number, there, back, self.nap(number))

    def arrives(self, turn):
        self.refused += not self.server.arrives(turn.route, self.now)

    def pacer_hears(self, turn):
        self.pacer.answered(turn, self.now)


seconds = st.floats(0, 2)
requests = st.lists(
    st.tuples(st.floats(0, 5), st.sampled_from(["list", "get", "createOrgApiKey"]), seconds, seconds), max_size=80
)


@given(requests=requests)
@settings(max_examples=150, deadline=None)
def test_no_request_is_refused_however_long_requests_take_and_in_whatever_order_they_arrive(requests):
    done = Simulation(requests, SMALL).run()
    assert done.refused == 0
    assert len(done.sent) == len(requests)


@given(
    count=st.integers(60, 250),
    routes=st.integers(1, 4),
    latencies=st.lists(st.tuples(st.floats(0.0001, 0.15), st.floats(0.0001, 0.15)), min_size=250, max_size=250),
)
@settings(max_examples=25, deadline=None)
def test_no_time_is_lost(count, routes, latencies):
    """All are sent within 2 % of the least time that the limits allow, and the time that the first answer takes."""
    names = [f"route {number % routes}" for number in range(count)]
    requests = [(0.0, name, *latency) for name, latency in zip(names, latencies, strict=False)]
    done = Simulation(requests, SMALL).run()
    most = max(Counter(names).values())
    least = max((count - 20) / 7, (most - 5) / 4)
    assert done.refused == 0
    assert max(done.sent.values()) <= least * 1.02 + 0.3


def test_neons_limits_as_they_are():
    """1,400 requests over five routes: 700 at once as routes allow, then 11.67 a second."""
    requests = [(0.0, f"route {number % 5}", 0.01, 0.02) for number in range(1400)]
    done = Simulation(requests, {}).run()
    assert done.refused == 0
    assert max(done.sent.values()) == pytest.approx(60, rel=0.002)
    # Who waits sleeps: only one of them keeps time.
    assert done.looks < 1400 * 5


def test_a_burst_goes_out_at_once():
    done = Simulation([(0.0, "list", 0.5, 0.5)] * 5, SMALL).run()
    assert set(done.sent.values()) == {0.0}


def test_a_route_without_tokens_keeps_nobody_else_waiting():
    crowd = [(0.0, "list", 0.01, 0.01)] * 12
    done = Simulation([*crowd, (0.1, "get", 0.01, 0.01)], SMALL).run()
    assert done.sent[12] == 0.1


def test_who_came_first_is_served_first():
    done = Simulation([(number / 1000, "list", 0.01, 0.01) for number in range(20)], SMALL).run()
    assert sorted(done.sent, key=done.sent.get) == list(range(20))


@pytest.fixture
def pacer():
    return Pacer(OwnStore(Buckets(**SMALL)))


def full(pacer, count=5, route="list"):
    turns = [pacer.enter(route, 0.0) for _ in range(count)]
    assert all(turn.ready for turn in turns)
    return turns


def test_who_leaves_the_line_costs_nothing(pacer):
    flying = full(pacer)
    first, second = pacer.enter("list", 0.0), pacer.enter("list", 0.0)
    pacer.unsent(first, 0.0)
    pacer.answered(flying[0], 0.1)
    assert pacer.wait(second, 0.1 + 0.2) is not None
    assert pacer.wait(second, 0.1 + 0.2501) is None


def test_a_request_that_was_never_sent_gives_its_token_back(pacer):
    flying = full(pacer)
    next_one = pacer.enter("list", 0.0)
    assert not next_one.ready
    pacer.unsent(flying[0], 0.0)
    assert next_one.ready


def test_who_keeps_time_is_followed_by_the_next(pacer):
    flying = full(pacer)
    first, second = pacer.enter("list", 0.0), pacer.enter("list", 0.0)
    woken = []
    second.listen(lambda: woken.append("second"))
    pacer.unsent(first, 0.0)
    assert woken == ["second"]
    pacer.answered(flying[0], 1.0)
    assert pacer.wait(second, 1.0) == pytest.approx(0.25, rel=1e-4)


def test_a_nudge_that_came_early_is_not_lost(pacer):
    """Between asking how long to wait and beginning to wait, it may have become one's turn."""
    flying = full(pacer)
    waiting = pacer.enter("list", 0.0)
    assert pacer.wait(waiting, 0.0) is not None
    pacer.unsent(flying[0], 0.0)
    woken = []
    waiting.listen(lambda: woken.append(True))
    assert woken


def test_a_refusal_empties_the_buckets_and_holds_everybody(pacer):
    (turn,) = full(pacer, 1)
    pacer.refused(turn, 0.0, hold=3.0)
    other = pacer.enter("get", 0.5)
    assert not other.ready
    assert pacer.wait(other, 0.5) == pytest.approx(2.5, rel=1e-4)
    assert pacer.wait(other, 3.0) is None
    # The account's bucket was empty at the refusal: 3 s have filled it with 21 tokens of at most 20, less one.
    assert sum(pacer.enter(f"route {number}", 3.0).ready for number in range(30)) == 19


def test_after_a_refusal_without_a_time_tokens_come_one_by_one(pacer):
    (turn,) = full(pacer, 1)
    pacer.refused(turn, 0.0, hold=0.0)
    other = pacer.enter("list", 0.0)
    assert pacer.wait(other, 0.0) == pytest.approx(1 / 4, rel=1e-4)


def test_a_turn_ends_once(pacer):
    (turn,) = full(pacer, 1)
    for _ in range(3):
        pacer.unsent(turn, 0.0)
        pacer.answered(turn, 0.0)
    assert len(full(pacer)) == 5
    assert not pacer.enter("list", 0.0).ready


@pytest.mark.parametrize(
    ("name", "rate"), [("", (700 / 60, 700)), ("listProjects", (40, 40)), ("createOrgApiKey", (10, 10))]
)
def test_limits_are_neons(name, rate):
    found = Buckets().rate_of(name)
    assert (found.per_second, found.capacity) == rate


def test_a_clock_that_goes_back_gives_no_tokens():
    bucket = Bucket(Rate(1, 10), 0.0, at=100.0)
    bucket.refill(50.0)
    bucket.refill(100.0)
    assert bucket.tokens == 0


@given(moves=st.lists(st.sampled_from(["enter", "answered", "unsent", "refused", "later"]), max_size=60))
@settings(deadline=None)
def test_books_always_balance(moves):
    """Whatever happens in whatever order, what is in flight is counted, and no bucket holds more than its room."""
    store = OwnStore(Buckets(**SMALL))
    pacer, turns, now = Pacer(store), [], 0.0
    for move in moves:
        match move:
            case "enter":
                turns.append(pacer.enter("list", now))
            case "later":
                now += 0.3
            case _ if turns:
                turn = turns.pop(0)
                extra = {"hold": 0.2} if move == "refused" else {}
                getattr(pacer, move)(turn, now, **extra)
        with store as buckets:
            for level in buckets.levels.values():
                assert level.flying == sum(turn.ready for turn in turns)
                assert 0 <= level.tokens <= level.rate.capacity - level.flying + 1e-9


def test_threads_share_a_pacer():
    """16 threads take and return turns for a while: nobody gets more than there is, and nobody is forgotten."""
    pacer = Pacer(OwnStore(Buckets(account=Rate(1e-9, 50), route=Rate(1e-9, 50))))
    taken, lock = Counter(), threading.Lock()

    def work(number):
        mine = [pacer.enter(f"route {number % 3}", 0.0) for _ in range(20)]
        with lock:
            taken["ready"] += sum(turn.ready for turn in mine)
        for turn in mine:
            pacer.unsent(turn, 0.0)

    for _ in range(20):
        threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert taken["ready"] > 0
    assert sum(pacer.enter(f"route {number}", 0.0).ready for number in range(100)) == 50


def test_the_least_wait_is_not_zero(pacer):
    """A keeper who is a hair too early does not spin."""
    flying = full(pacer)
    for turn in flying:
        pacer.answered(turn, 0.0)
    waiting = pacer.enter("list", 0.0)
    left = pacer.wait(waiting, math.nextafter(0.25, 0) - 1e-13)
    assert left is None or left >= 1e-4
