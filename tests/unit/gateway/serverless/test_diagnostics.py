"""Refused logins, of which libpq has but the text."""

from __future__ import annotations

import pytest

from lamplighter.gateway.serverless.diagnostics import login_failed
from lamplighter.gateway.wire import texts

BEFORE = 'connection to server at "127.0.0.1", port 5432 failed: FATAL:  '


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ('password authentication failed for user "a: b"', "28P01"),
        ('database "x" does not exist', "3D000"),
        ('role "x" does not exist', "28000"),
        ('role "x" is not permitted to log in', "28000"),
        ("sorry, too many clients already", "53300"),
        ("remaining connection slots are reserved for roles with the SUPERUSER attribute", "53300"),
        (texts.TOO_MANY_CONNECTIONS, "53300"),
        ("too many connections for this endpoint", "53300"),
        ("the database system is shutting down", "57P03"),
        ("the endpoint was not ready within 60 seconds", "57P03"),
        ('permission denied for database "x"', "42501"),
        (texts.DISABLED, "XX000"),
        ("something else", None),
    ],
)
def test_the_sentence_and_its_code(said: str, code: str | None):
    failed = login_failed(f"{BEFORE}{said}\n")
    assert failed is not None
    assert failed.message == said
    assert failed.fields == {"severity": "FATAL", "code": code}


def test_detail_and_hint():
    failed = login_failed(f"{BEFORE}no\nDETAIL:  It sleeps.\nHINT:  Wake it: soon.\n")
    assert failed is not None
    assert failed.message == "no"
    assert (failed.fields["detail"], failed.fields["hint"]) == ("It sleeps.", "Wake it: soon.")


@pytest.mark.parametrize("said", ["", "Connection refused", "server closed the connection unexpectedly"])
def test_what_libpq_says_is_no_error_of_postgres(said: str):
    assert login_failed(f'connection to server at "127.0.0.1", port 5432 failed: {said}') is None
