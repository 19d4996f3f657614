"""Memory that requests share."""

from __future__ import annotations

import pytest

from lamplighter.gateway.serverless.errors import NotAllowed, TooBusy
from lamplighter.gateway.serverless.limits import Budget
from lamplighter.gateway.serverless.targets import Target


def test_what_is_held_is_given_back():
    """A share that ends leaves all for others, also when it ended by asking for too much."""
    budget = Budget(100, of_caller=100)
    with budget.share("192.0.2.1") as first:
        first.take(60)
        with budget.share("192.0.2.2") as second:
            second.take(30)
            with pytest.raises(TooBusy):
                second.take(20)
        assert budget.held == 60
    assert budget.held == 0


def test_what_is_held_goes_up_and_down():
    """What was refused leaves what was held before."""
    budget = Budget(100, of_caller=100)
    with budget.share("192.0.2.1") as share:
        for count in (60, 20, 90):
            share.hold(count)
            assert budget.held == count
        with pytest.raises(TooBusy):
            share.hold(101)
        assert budget.held == 90
    assert budget.held == 0


@pytest.mark.parametrize(
    ("caller", "same", "other"),
    [("192.0.2.1", "192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"), (None, None, "::1")],
)
def test_one_caller_leaves_room_for_others(caller: str | None, same: str | None, other: str):
    """Whoever comes from one address, or one network of IPv6, shares a part of the whole."""
    budget = Budget(100, of_caller=25)
    with budget.share(caller) as first, budget.share(same) as second, budget.share(other) as third:
        first.take(20)
        with pytest.raises(TooBusy):
            second.take(6)
        third.take(25)
        second.take(5)
    with budget.share(caller) as again:
        again.take(25)


def test_a_target_says_who_may_come_in():
    open_to_all = Target("127.0.0.1", 5432)
    open_to_all.check({})
    closed = Target("127.0.0.1", 5432, admits=lambda client: client == "10.0.0.1")
    closed.check({"client": ("10.0.0.1", 1)})
    for other in ({"client": ("10.0.0.2", 1)}, {"client": None}, {}, {"client": ("", 0)}):
        with pytest.raises(NotAllowed, match="not allowed to connect"):
            closed.check(other)


def test_a_directory_is_a_unix_socket():
    assert Target("/run/x", 5432).unix_path == "/run/x/.s.PGSQL.5432"
    assert Target("127.0.0.1", 5432).unix_path is None
