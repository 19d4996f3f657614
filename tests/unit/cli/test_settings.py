"""What is said of a wrong setting."""

from __future__ import annotations

import click
import pytest

from lamplighter.cli.settings import complain, given, read_settings


def test_an_option_is_named_as_it_was_given() -> None:
    said = complain("endpoint_ports", "Value error, both from 1024", options={"endpoint_ports": (1, 2)}, environ={})
    assert said == "--endpoint-ports: both from 1024"


def test_a_variable_is_shown_with_its_value() -> None:
    said = complain("port", "Input should be a valid integer", options={}, environ={"LAMP_PORT": "abc"})
    assert said == "LAMP_PORT=abc: it should be a valid integer"


def test_a_variable_is_found_in_any_case() -> None:
    """Settings take them so."""
    assert complain("port", "x", options={}, environ={"lamp_Port": "1"}) == "lamp_Port=1: x"


def test_a_secret_is_not_shown() -> None:
    said = complain("catalog_url", "x", options={}, environ={"LAMP_CATALOG_URL": "postgresql://u:sekret@h/d"})
    assert "sekret" not in said


def test_given_leaves_out_what_was_not_given() -> None:
    assert given(port=0, host=None, driver="") == {"port": 0, "driver": ""}


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("LAMP_PORT", "abc"),
        ("LAMP_PORT", "99999"),
        ("LAMP_ENDPOINT_PORTS", "abc"),
        ("LAMP_ENDPOINT_PORTS", "[1, 2]"),
        ("LAMP_STORAGE_DRIVER", "zfs"),
        ("LAMP_LOG_LEVEL", "loud"),
        ("LAMP_STORAGE_RESERVE", "-1"),
    ],
)
def test_a_wrong_variable_is_a_wrong_usage(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    """In one line that names the variable."""
    monkeypatch.setenv(variable, value)
    with pytest.raises(click.UsageError) as caught:
        read_settings()
    assert caught.value.message.startswith(f"{variable}={value}: ")
    assert "\n" not in caught.value.message


def test_an_option_wins_over_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAMP_PORT", "1111")
    assert read_settings(port=2222).port == 2222
