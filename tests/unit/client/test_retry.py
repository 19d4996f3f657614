from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamplighter.client.retry import RetryPolicy, may_repeat, retry_after

NOW = 1_700_000_000
chances = st.floats(0, 1, exclude_max=True)


@given(attempt=st.integers(1, 200), chance=chances)
def test_waits_grow_up_to_a_most_and_are_never_the_same_for_all(attempt, chance):
    policy = RetryPolicy(retries=1000, first=0.5, most=20)
    whole = min(20, 0.5 * 2 ** (attempt - 1))
    assert whole / 2 <= policy.delay(attempt, chance=chance) <= whole
    assert policy.delay(attempt, chance=0) == whole


@given(attempt=st.integers(1, 6), chance=chances, after=st.floats(0.001, 120))
def test_the_servers_time_is_never_cut_short(attempt, chance, after):
    assert after <= RetryPolicy().delay(attempt, chance=chance, after=after) <= after + 0.5


def test_there_is_an_end():
    assert RetryPolicy().delay(6, chance=0) is not None
    assert RetryPolicy().delay(7, chance=0) is None
    assert RetryPolicy(retries=0).delay(1, chance=0) is None


def test_a_server_that_is_not_there_is_given_up_sooner():
    assert RetryPolicy().delay(3, chance=0, connecting=True) == 2
    assert RetryPolicy().delay(4, chance=0, connecting=True) is None
    assert RetryPolicy(retries=0).delay(1, chance=0, connecting=True) is None


def test_too_long_a_time_is_not_waited_for():
    assert RetryPolicy().delay(1, chance=0, after=120) == 120
    assert RetryPolicy().delay(1, chance=0, after=120.1) is None


def test_no_time_at_all_is_no_reason_to_hurry():
    assert RetryPolicy().delay(3, chance=0, after=0) == 2


@pytest.mark.parametrize("safe", [True, False])
@pytest.mark.parametrize("status", range(300, 600))
def test_which_answers_may_be_followed_by_another_attempt(safe, status):
    assert may_repeat(safe=safe, status=status) is (status in {423, 429, 503} or (safe and status in {502, 504}))


@pytest.mark.parametrize(
    ("safe", "sent", "may"), [(True, True, True), (True, False, True), (False, False, True), (False, True, False)]
)
def test_without_an_answer_it_depends_on_what_may_have_happened(safe, sent, may):
    assert may_repeat(safe=safe, sent=sent) is may


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("0", 0), ("7", 7), (" 7 ", 7), ("1.5", 1.5), ("120", 120), ("999999999", 999999999), ("9" * 400, 1e9)],
)
def test_seconds(value, seconds):
    assert retry_after(value, date=None, wall=lambda: NOW) == seconds


@pytest.mark.parametrize("value", [None, "", "soon", "-1", "1e9", "inf", "nan", "Mon, 99 Foo", "१"])
def test_what_cannot_be_read_is_nothing(value):
    assert retry_after(value, date=None, wall=lambda: NOW) is None


@given(seconds=st.integers(-1000, 1000), skew=st.integers(-100_000, 100_000))
def test_a_date_counts_from_the_answers_own(seconds, skew):
    """Whatever the time is here."""
    value, date = formatdate(NOW + seconds, usegmt=True), formatdate(NOW, usegmt=True)
    assert retry_after(value, date=date, wall=lambda: NOW + skew) == max(0, seconds)


@pytest.mark.parametrize("date", [None, "", "today"])
def test_a_date_counts_from_our_time_when_the_answer_has_none(date):
    assert retry_after(formatdate(NOW + 9, usegmt=True), date=date, wall=lambda: NOW) == 9


@given(st.text())
def test_no_text_is_a_fault(text):
    found = retry_after(text, date=text, wall=lambda: NOW)
    assert found is None or found >= 0
