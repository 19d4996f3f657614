"""What of a refused connection is worth another attempt, and when it comes."""

from __future__ import annotations

from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamplighter.api.secret import Secret
from lamplighter.client.waking import Outlook, attempt_seconds, outlook_of, pauses, refusal, unmoved

URI = Secret("postgresql://me:p%40sekret@127.0.0.1:1/db?sslmode=require")
AT = 'connection failed: connection to server at "127.0.0.1", port 20000 failed: '


@pytest.mark.parametrize(
    "said",
    [
        AT + "Connection refused\n\tIs the server running on that host and accepting TCP/IP connections?",
        AT + "server closed the connection unexpectedly\n\tThis probably means the server terminated abnormally",
        AT + "SSL SYSCALL error: Connection reset by peer",
        "connection timeout expired",
        "failed to resolve host 'ep-x.example': [Errno -3] Temporary failure in name resolution",
        AT + "FATAL:  the database system is starting up",
        AT + "FATAL:  the database system is shutting down",
        AT + "FATAL:  the database system is not yet accepting connections\nDETAIL:  Consistent recovery state",
        AT + "FATAL:  terminating connection due to administrator command",
        AT + "ERROR:  Couldn't connect to compute node",
        AT + "ERROR:  Control plane request failed",
    ],
)
def test_what_comes_up_or_cannot_be_reached_is_tried_again(said: str) -> None:
    assert outlook_of(said) is Outlook.PASSING


@pytest.mark.parametrize(
    "said",
    [
        AT + "ERROR:  The endpoint has been disabled. Enable it using Neon API and retry.",
        AT + "FATAL:  sorry, too many clients already",
        AT + 'FATAL:  no pg_hba.conf entry for host "127.0.0.1", no encryption',
        AT + "server does not support SSL, but SSL was required",
        AT + "SSL error: certificate verify failed",
        AT + 'root certificate file "/x/root.crt" does not exist',
        AT + "channel binding required, but SSL not in use",
        AT + "fe_sendauth: no password supplied",
    ],
)
def test_what_will_be_the_same_the_next_time_is_not(said: str) -> None:
    assert outlook_of(said) is Outlook.LASTING


@pytest.mark.parametrize(
    "said",
    [
        AT + 'FATAL:  password authentication failed for user "me"',
        AT + 'FATAL:  database "nope" does not exist',
        AT + 'FATAL:  role "nobody" does not exist',
    ],
)
def test_what_a_change_under_way_may_make_work_depends_on_that(said: str) -> None:
    assert outlook_of(said) is Outlook.UNSETTLED


def test_a_password_is_never_passed_on() -> None:
    """Neither as it is nor as the address has it; and an address that cannot be read is not repeated at all."""
    said = refusal("FATAL: p@sekret is wrong, and so is p%40sekret", uri=URI)
    assert said.said == "FATAL: *** is wrong, and so is ***"
    assert "sekret" not in refusal(f"cannot read {URI.reveal()}", uri=URI, readable=False).said
    assert refusal("", uri=URI, readable=False).outlook is Outlook.LASTING


def test_pauses_grow_and_stay_short() -> None:
    first = list(islice(pauses(), 50))
    assert first[0] == 0.1
    assert first == sorted(first)
    assert first[-1] == 1.0


@given(st.floats(-100, 10_000))
def test_an_attempt_ends_soon_after_the_time_is_over(left: float) -> None:
    assert 2 <= attempt_seconds(left) <= 15
    assert attempt_seconds(left) < max(left, 1) + 2


def test_the_environment_leads_to_no_other_server() -> None:
    """A port is given only where the URI has none: it would come before the URI's own."""
    assert unmoved(Secret("postgresql://me:pw@host/db?sslmode=require")) == {"hostaddr": "", "port": "5432"}
    assert unmoved(Secret("postgresql://me:pw@host:6000/db")) == {"hostaddr": ""}
    assert unmoved(Secret("postgresql://me:pw@host:port/db")) == {}
