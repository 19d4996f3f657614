"""Rendering postgresql.conf and its companions."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lamplighter.compute.config import (
    ALLOWED,
    ALLOWED_PREFIXES,
    FORBIDDEN,
    Facts,
    Floors,
    Tls,
    check_settings,
    quote_conninfo,
    quote_value,
    render_hba,
    render_ident,
    render_postgresql_conf,
    render_settings,
    size_of,
)
from lamplighter.compute.ports import ComputeSpec, Standby

FACTS = Facts(major=17, socket_dir=Path("/run/l/abc/s"), os_users=("lamp",), tls=Tls(Path("/t/c"), Path("/t/k")))
SPEC = ComputeSpec(id="ep-one", major=17, data_dir=Path("/d"), port=5433)

text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60)
names = st.sampled_from(sorted(ALLOWED))

_UNESCAPED = {"n": "\n", "r": "\r", "b": "\b", "f": "\f", "t": "\t"}


def parse(conf: str) -> list[tuple[str, str]]:
    """Read a configuration as Postgres does (guc-file.l): a line each, values in single quotes."""
    found = []
    for line in conf.split("\n"):
        if not line or line.startswith("#"):
            continue
        match = re.fullmatch(r"([A-Za-z_][A-Za-z0-9_.]*) = '((?:[^'\\\n]|\\.|'')*)'", line)
        assert match, line
        raw = match[2].replace("''", "'")
        found.append((match[1], re.sub(r"\\(.)", lambda m: _UNESCAPED.get(m[1], m[1]), raw, flags=re.DOTALL)))
    return found


@given(st.lists(st.tuples(names, text)))
@example([("search_path", "a'; b = 'c\nfsync = off\\")])
def test_what_is_rendered_is_read_back(settings):
    assert parse(render_settings(settings)) == settings


@given(st.dictionaries(names, text))
def test_no_value_of_a_user_adds_or_overrides_a_setting_of_the_platform(settings):
    conf = parse(render_postgresql_conf(SPEC.__class__(**{**_values(SPEC), "settings": settings}), FACTS))
    last = dict(conf)
    plain = dict(parse(render_postgresql_conf(SPEC, FACTS)))
    assert {name: value for name, value in last.items() if name in settings} == settings
    assert {name: value for name, value in last.items() if name not in settings} == {
        name: value for name, value in plain.items() if name not in settings
    }


def _values(spec):
    return {name: getattr(spec, name) for name in ComputeSpec.__slots__}


def with_(**values):
    return ComputeSpec(**{**_values(SPEC), **values})


@given(st.text(max_size=30), st.text(max_size=30))
def test_only_names_of_the_allow_list_pass(name, value):
    if not check_settings({name: value}):
        lowered = name.lower()
        assert lowered in ALLOWED or lowered.startswith(ALLOWED_PREFIXES)
        assert "\0" not in value


@pytest.mark.parametrize("name", sorted(FORBIDDEN))
def test_what_keeps_data_safe_cannot_be_set(name):
    (problem,) = check_settings({name.upper(): "x"})
    assert "platform" in problem
    with pytest.raises(ValueError, match="platform"):
        render_postgresql_conf(with_(settings={name: "x"}), FACTS)


def test_no_name_is_both_allowed_and_forbidden():
    assert not ALLOWED & FORBIDDEN
    assert not [name for name in FORBIDDEN if name.startswith(ALLOWED_PREFIXES)]


@pytest.mark.parametrize("major", [14, 15, 16, 17, 18])
@pytest.mark.parametrize("standby", [None, Standby("ep-primary", "lamp_x")])
def test_everything_the_platform_decides_is_forbidden_to_users(major, standby):
    facts = Facts(
        major=major,
        socket_dir=Path("/s"),
        os_users=("a",),
        tls=FACTS.tls,
        copy_on_write=True,
        primary_socket_dir=Path("/p"),
    )
    conf = render_postgresql_conf(with_(standby=standby, logical_replication=True), facts)
    fixed = {name for name, _ in parse(conf.partition("# The platform's.")[2])}
    assert fixed <= FORBIDDEN
    assert {"fsync", "full_page_writes", "synchronous_commit", "archive_mode"} <= fixed
    defaults = {name for name, _ in parse(conf.partition("# The user's.")[0])}
    assert not defaults & fixed


@pytest.mark.parametrize(
    ("cu", "connections"),
    [(0.25, 112), (0.5, 225), (1, 450), (2, 901), (3, 1351), (4, 1802), (8, 3604), (9, 4000), (56, 4000)],
)
def test_connections_are_neons(cu, connections):
    assert size_of(cu).max_connections == connections


@given(st.floats(0.25, 64), st.floats(0.25, 64))
def test_a_larger_compute_has_no_less_of_anything(one, other):
    small, large = size_of(min(one, other)), size_of(max(one, other))
    for name in small.__slots__:
        assert getattr(small, name) <= getattr(large, name)
    assert large.shared_buffers < large.memory


def test_the_smallest_has_small_buffers():
    assert size_of(0.25).shared_buffers == 16


def rendered(spec=SPEC, facts=FACTS):
    return dict(parse(render_postgresql_conf(spec, facts)))


def test_without_a_port_nothing_listens():
    conf = rendered(with_(port=None), Facts(major=17, socket_dir=Path("/s"), os_users=("a",), preload=("x",)))
    assert (conf["listen_addresses"], conf["port"], conf["shared_preload_libraries"]) == ("", "5432", "")
    assert "ssl" not in conf


def test_with_a_port_there_is_tls_and_the_preloaded_library():
    facts = Facts(major=17, socket_dir=Path("/s"), os_users=("a",), tls=FACTS.tls, preload=("pg_stat_statements",))
    conf = rendered(SPEC, facts)
    assert (conf["listen_addresses"], conf["port"]) == ("127.0.0.1", "5433")
    assert (conf["ssl"], conf["ssl_cert_file"], conf["ssl_min_protocol_version"]) == ("on", "/t/c", "TLSv1.2")
    assert conf["shared_preload_libraries"] == "pg_stat_statements"


def test_settings_that_a_major_does_not_know_are_left_out():
    assert "io_method" not in rendered()
    assert rendered(SPEC, Facts(major=18, socket_dir=Path("/s"), os_users=("a",)))["io_method"] == "sync"
    old = rendered(SPEC, Facts(major=14, socket_dir=Path("/s"), os_users=("a",)))
    assert not {"allow_alter_system", "createrole_self_grant"} & set(old)


def test_a_standby_has_no_less_than_its_primary():
    floors = Floors(max_connections=901, max_worker_processes=50, max_locks_per_transaction=128)
    spec = with_(standby=Standby("ep-primary", "lamp_ro"))
    conf = rendered(
        spec, Facts(major=17, socket_dir=Path("/s"), os_users=("a",), floors=floors, primary_socket_dir=Path("/p q"))
    )
    assert (conf["max_connections"], conf["max_worker_processes"], conf["max_locks_per_transaction"]) == (
        "901",
        "50",
        "128",
    )
    assert conf["primary_slot_name"] == "lamp_ro"
    assert "host='/p q' port='5432' user='cloud_admin'" in conf["primary_conninfo"]


def test_copy_on_write_and_logical_replication_show():
    facts = Facts(major=17, socket_dir=Path("/s"), os_users=("a",), copy_on_write=True)
    assert rendered(SPEC, facts)["wal_recycle"] == "off"
    assert "wal_recycle" not in rendered()
    assert (rendered()["wal_level"], rendered(with_(logical_replication=True))["wal_level"]) == ("replica", "logical")


@given(text)
def test_a_quoted_value_of_a_conninfo_is_read_back(value):
    from psycopg.conninfo import conninfo_to_dict

    assert conninfo_to_dict(f"application_name={quote_conninfo(value)} port='1'") == {
        "application_name": value,
        "port": "1",
    }


def test_a_nul_is_refused():
    with pytest.raises(ValueError, match="NUL"):
        quote_value("a\0b")
    with pytest.raises(ValueError, match="a b"):
        render_settings([("a b", "c")])


def test_hba_lets_the_superuser_in_by_the_socket_alone():
    lines = [line.split() for line in render_hba(tls=True).splitlines()]
    local = [line for line in lines if line[0] == "local"]
    assert lines[: len(local)] == local
    # Peer alone, and first: no line of a password comes before it, and where it fits no other counts.
    assert local[:3] == [
        ["local", "all", "cloud_admin", "peer", "map=platform"],
        ["local", "replication", "cloud_admin", "peer", "map=platform"],
        ["local", "all", "cloud_copier", "peer", "map=platform"],
    ]
    assert local[3:] == [
        ["local", "replication", "all", "reject"],
        ["local", "template1", "all", "reject"],
        ["local", "all", "all", "scram-sha-256"],
    ]
    tcp = [line for line in lines if line[0] != "local"]
    assert tcp[0] == ["host", "all", "cloud_admin,cloud_copier", "all", "reject"]
    assert all(line[-1] == "reject" for line in tcp[:3])
    assert tcp[3:] == [
        ["hostssl", "all", "all", "all", "scram-sha-256"],
        ["host", "all", "all", "samehost", "scram-sha-256"],
    ]


def test_hba_wants_no_tls_of_a_build_that_has_none():
    lines = render_hba(tls=False).splitlines()
    assert lines[-1].split() == ["host", "all", "all", "all", "scram-sha-256"]
    assert lines[:-1] == render_hba(tls=True).splitlines()[:-2]


def test_ident_names_are_quoted_and_unquotable_ones_refused():
    assert render_ident(["we ird", "root", "root"]) == (
        'platform  "root"  cloud_admin\nplatform  "root"  cloud_copier\n'
        'platform  "we ird"  cloud_admin\nplatform  "we ird"  cloud_copier\n'
    )
    for name in ('a"b', "a\nb", ""):
        with pytest.raises(ValueError) as caught:
            render_ident([name])
        assert caught.value.args == (name,)
