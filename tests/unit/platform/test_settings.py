"""How a platform is set up: options, environment, defaults; and where its sockets are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from lamplighter.compute.places import check_run_dir
from lamplighter.platform.settings import Settings, default_data_dir, run_dir_of

TEXT_OF = {
    "data_dir": ("/srv/lamp", Path("/srv/lamp")),
    "host": ("127.0.0.2", "127.0.0.2"),
    "port": ("7000", 7000),
    "endpoint_ports": ("[21000, 21999]", (21000, 21999)),
    "compute_ports": ("[31000, 31999]", (31000, 31999)),
    "listen": ("0.0.0.0", "0.0.0.0"),
    "domain": ("db.example.org", "db.example.org"),
    "domain_port": ("5433", 5433),
    "console_proxy": ("7433", 7433),
    "redirect": ("true", True),
    "endpoint_connections": ("100", 100),
    "active_endpoints": ("20", 20),
    "suspend_after": ("30", 30),
    "catalog_url": ("postgresql://db/lamp", "postgresql://db/lamp"),
    "postgres_bin": ("/opt/pg/bin", Path("/opt/pg/bin")),
    "cache_dir": ("/srv/cache", Path("/srv/cache")),
    "storage_driver": ("copy", "copy"),
    "storage_reserve": ("1048576", 1_048_576),
    "rate_limits": ("neon", "neon"),
    "strict_org_id": ("true", True),
    "missing_is_404": ("1", True),
    "log_level": ("debug", "debug"),
}


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch):
    """No setting of whoever runs the tests."""
    for name in [name for name in os.environ if name.upper().startswith("LAMP_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def ordinary_user(monkeypatch, tmp_path):
    """What an ordinary user's session looks like; gives their home."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    return tmp_path


# --- settings


@pytest.mark.parametrize("name", sorted(TEXT_OF))
def test_every_setting_can_come_from_the_environment(monkeypatch, name):
    text, value = TEXT_OF[name]
    assert getattr(Settings(), name) != value
    monkeypatch.setenv(f"LAMP_{name.upper()}", text)
    assert getattr(Settings(), name) == value


def test_no_setting_is_left_out_here():
    assert set(TEXT_OF) | {"tls_certificate", "tls_key"} == set(Settings.model_fields)


def test_a_certificate_comes_with_its_key(monkeypatch):
    monkeypatch.setenv("LAMP_TLS_CERTIFICATE", "/etc/db.crt")
    with pytest.raises(ValidationError, match="both, or neither"):
        Settings()
    monkeypatch.setenv("LAMP_TLS_KEY", "/etc/db.key")
    assert (Settings().tls_certificate, Settings().tls_key) == (Path("/etc/db.crt"), Path("/etc/db.key"))


@pytest.mark.parametrize("domain", ["*.example.org", "", "exa mple", "a..b"])
def test_a_domain_must_be_one(domain):
    with pytest.raises(ValidationError):
        Settings(domain=domain)


def test_ports_of_endpoints_and_of_computes_are_apart():
    with pytest.raises(ValidationError, match="must not overlap"):
        Settings(endpoint_ports=(20000, 30000))


@pytest.mark.parametrize("name", sorted(TEXT_OF))
def test_an_empty_variable_is_none(monkeypatch, name):
    expected = getattr(Settings(), name)
    monkeypatch.setenv(f"LAMP_{name.upper()}", "")
    assert getattr(Settings(), name) == expected


def test_an_option_counts_more_than_the_environment(monkeypatch):
    monkeypatch.setenv("LAMP_PORT", "7000")
    assert Settings(port=0).port == 0


def test_variables_that_are_no_settings_are_not_looked_at(monkeypatch):
    monkeypatch.setenv("LAMP_FAULT", "branch.create.after_clone")
    monkeypatch.setenv("LAMP_API_KEY", "napi_x")
    assert Settings() == Settings()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("port", "65536"),
        ("port", "-1"),
        ("endpoint_ports", "[29999, 20000]"),
        ("endpoint_ports", "[80, 20000]"),
        ("endpoint_ports", "[20000, 70000]"),
        ("endpoint_ports", "[20000]"),
        ("console_proxy", "65536"),
        ("endpoint_connections", "0"),
        ("storage_driver", "zfs"),
        ("storage_reserve", "-1"),
        ("rate_limits", "on"),
        ("log_level", "loud"),
    ],
)
def test_a_value_that_cannot_be_is_refused(monkeypatch, name, text):
    monkeypatch.setenv(f"LAMP_{name.upper()}", text)
    with pytest.raises(ValidationError, match=name):
        Settings()


@given(st.integers(0, 70_000), st.integers(0, 70_000))
@settings(deadline=None)
def test_endpoint_ports_are_a_range_that_anybody_may_listen_on(first, last):
    if 1024 <= first <= last < 30_000 or 32_767 < first <= last <= 65_535:
        assert Settings(endpoint_ports=(first, last)).endpoint_ports == (first, last)
    else:
        with pytest.raises(ValidationError):
            Settings(endpoint_ports=(first, last))


def test_settings_do_not_change():
    with pytest.raises(ValidationError):
        Settings().port = 1  # type: ignore[misc]


# --- the data directory


def test_one_directory_has_one_spelling(monkeypatch, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    spellings = [tmp_path / "real", Path("real"), Path("link"), Path("link/../real/."), Path("~/real")]
    assert {Settings(data_dir=path).data_dir for path in spellings} == {tmp_path / "real"}


def test_a_directory_that_is_not_there_yet_is_named_all_the_same(tmp_path):
    assert Settings(data_dir=tmp_path / "a" / ".." / "b").data_dir == tmp_path / "b"


def test_an_ordinary_user_has_it_at_home(ordinary_user):
    assert default_data_dir() == ordinary_user / ".local/share/lamplighter"
    assert Settings().data_dir == ordinary_user / ".local/share/lamplighter"


def test_an_ordinary_user_may_keep_data_elsewhere(ordinary_user, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(ordinary_user / "data"))
    assert Settings().data_dir == ordinary_user / "data/lamplighter"
    monkeypatch.setenv("XDG_DATA_HOME", "")
    assert Settings().data_dir == ordinary_user / ".local/share/lamplighter"


def test_a_default_is_absolute_too(ordinary_user, monkeypatch):
    monkeypatch.chdir(ordinary_user)
    monkeypatch.setenv("XDG_DATA_HOME", "data")
    assert Settings().data_dir == ordinary_user / "data/lamplighter"


def test_root_has_it_where_other_users_can_get_to(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("HOME", "/nobody/may/enter")
    assert Settings().data_dir == Path("/var/lib/lamplighter")


# --- the run directory


@pytest.mark.parametrize("uid", [0, 1000, 2**32 - 2])
@pytest.mark.parametrize("length", [1, 39, 40, 200])
@pytest.mark.parametrize("letter", ["r", "é", "数"])
def test_no_data_directory_and_no_session_makes_a_sockets_path_too_long(monkeypatch, tmp_path, uid, length, letter):
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    monkeypatch.setattr(os, "access", lambda *_: True)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/" + letter * (length - 1))
    check_run_dir(run_dir_of(tmp_path / "deep" / ("x" * 200) / "data"))


def test_a_session_has_it_in_its_own_place(ordinary_user, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, _mode: path == "/run/user/1000")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    assert run_dir_of(ordinary_user).parent == Path("/run/user/1000/lamplighter")


@pytest.mark.parametrize("runtime", [None, "", "/missing"])
def test_without_such_a_place_it_is_below_a_directory_of_the_users(ordinary_user, monkeypatch, runtime):
    if runtime is not None:
        monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
    assert run_dir_of(ordinary_user).parent == Path("/tmp/lamplighter-1000")


def test_platforms_do_not_share_one(tmp_path):
    assert len({run_dir_of(tmp_path / str(number)) for number in range(100)}) == 100


def test_one_platform_has_one_however_its_directory_is_spelled(monkeypatch, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    monkeypatch.chdir(tmp_path)
    spellings = [tmp_path / "real", Path("real"), tmp_path / "link", tmp_path / "link" / ".." / "real"]
    assert len({run_dir_of(path) for path in spellings}) == 1
