"""What a PgBouncer is told: read back as PgBouncer reads it."""

from __future__ import annotations

import configparser
import os
from pathlib import Path

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from lamplighter.compute import scram
from lamplighter.compute.pooler_config import (
    MINIMUM,
    PLATFORM_ROLES,
    RANDOM_BYTES,
    PoolerSpec,
    Users,
    locked_verifier,
    may_be_role,
    parse_users,
    parse_version,
    pool_size,
    render_ini,
    render_users,
    users_of,
)
from lamplighter.compute.pooler_errors import PoolerFailed, PoolerMissing, PoolerPortTaken
from lamplighter.compute.pooler_files import PoolerRecord, load, pooler_places, save
from lamplighter.compute.pooler_program import find_pooler
from lamplighter.compute.process import ProcessIdentity

SPEC = PoolerSpec("ep-one", 6543, Path("/run/l/abc/s"), 5432, 0.25)
VERIFIER = scram.verifier("secret", b"0123456789abcdef")
OTHER = scram.verifier("other", b"0123456789abcdef")

names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=15)
stored = names.map(str.encode)


def ini(spec: PoolerSpec = SPEC, *, version: tuple[int, int, int] = (1, 18, 0), files: int = 20_000) -> dict[str, str]:
    text = render_ini(spec, version=version, users_file=Path("/run/l/abc/pooler.users"), files=files)
    parser = configparser.ConfigParser(interpolation=None, delimiters=("=",))
    parser.read_string(text)
    assert list(parser["databases"]) == ["*"]
    return dict(parser["pgbouncer"]) | {"*": parser["databases"]["*"]}


def fields(text: str) -> list[tuple[str, str]]:
    """Read a file of users as PgBouncer does: two quoted fields, a quote doubled, the rest of the line passed over."""
    found, at = [], 0

    def quoted() -> str:
        nonlocal at
        assert text[at] == '"'
        at += 1
        begin = at
        while text[at] != '"' or text[at : at + 2] == '""':
            at += 2 if text[at] == '"' else 1
        at += 1
        return text[begin : at - 1].replace('""', '"')

    while at < len(text):
        name = quoted()
        assert text[at] == " "
        at += 1
        found.append((name, quoted()))
        at = text.index("\n", at) + 1
    return found


def test_figures_are_neons():
    found = ini()
    assert found["pool_mode"] == "transaction"
    assert found["max_client_conn"] == "10000"
    assert found["query_wait_timeout"] == "120"
    assert found["default_pool_size"] == "100"
    assert pool_size(0.25) == int(112 * 0.9)
    assert pool_size(56) == 3600


def test_nobody_is_administrator_and_nothing_is_asked_of_postgres_before_a_login():
    found = ini()
    assert (found["admin_users"], found["stats_users"], found["unix_socket_dir"]) == ("", "", "")
    assert found["listen_addr"] == "127.0.0.1"
    assert found["auth_type"] == "scram-sha-256"
    assert not {"auth_query", "auth_user", "auth_dbname"} & set(found)
    assert "user=" not in found["*"]


def test_prepared_statements_are_kept_where_pgbouncer_can():
    assert "max_prepared_statements" not in ini(version=(1, 20, 1))
    assert ini(version=(1, 21, 0))["max_prepared_statements"] == "1000"


@given(st.integers(0, 1_000_000))
def test_clients_are_no_more_than_there_are_files(files):
    clients = int(ini(files=files)["max_client_conn"])
    assert clients <= 10_000
    assert clients == 10 or clients + pool_size(0.25) < files


@given(st.text(max_size=20))
@example("it's here")
@example("a,b")
@example("x\n[pgbouncer]")
@example(" ")
def test_a_path_is_quoted_or_refused(text):
    assume("/" not in text)
    spec = PoolerSpec("ep-one", 6543, Path(f"/run/{text}"), 5432)
    try:
        server = ini(spec)["*"]
    except ValueError:
        assert not text.isprintable() or "," in text or text != text.strip()
        return
    assert server == "host='{}' port=5432 application_name=pgbouncer".format(str(spec.socket_dir).replace("'", "''"))


def test_a_relative_path_is_refused():
    with pytest.raises(ValueError, match="choose one"):
        ini(PoolerSpec("ep-one", 6543, Path("here"), 5432))


@given(st.dictionaries(names, st.sampled_from([VERIFIER, OTHER])), st.sets(names))
@example({'a" "b': VERIFIER, "new\nline": VERIFIER, '"': OTHER, " ": OTHER, "; x": VERIFIER}, {'" "locked"\n'})
def test_users_are_read_back_by_pgbouncer_and_by_us(opened, locked):
    users = Users(opened, {name: locked_verifier(os.urandom(RANDOM_BYTES)) for name in locked - set(opened)})
    text = render_users(users)
    assert parse_users(text) == users
    assert dict(fields(text)) == {**users.open, **users.locked}
    assert len(fields(text)) == len(users.open) + len(users.locked)


@given(st.lists(st.tuples(stored, st.just(VERIFIER))), st.lists(st.tuples(stored, st.just(OTHER))))
def test_who_was_known_once_stays_known_but_locked(before, after):
    first = users_of(before, Users(), os.urandom)
    then = users_of(after, first, os.urandom)
    assert then.open == {name.decode(): OTHER for name, _ in after if name.decode() not in PLATFORM_ROLES}
    assert set(then.locked) == ({*first.open, *first.locked}) - set(then.open)
    # Once locked, it is the same for everybody who tries again.
    assert users_of(after, then, os.urandom) == then
    for verifier in then.locked.values():
        assert not scram.matches("", verifier)
        assert not scram.matches("secret", verifier)


def test_the_platforms_roles_are_locked_whatever_postgres_says():
    users = users_of([(name.encode(), VERIFIER) for name in PLATFORM_ROLES], Users(), os.urandom)
    assert users.open == {}
    assert set(users.locked) == {"cloud_admin", "cloud_copier"}
    assert VERIFIER not in users.locked.values()


@pytest.mark.parametrize(
    ("name", "verifier"),
    [
        (b"", VERIFIER),
        (b"\xff\xfe", VERIFIER),
        (b"a" * 64, VERIFIER),
        (b"nul\0", VERIFIER),
        (b"md5", "md5" + "0" * 32),
        (b"plain", "secret"),
        (b"quote", VERIFIER[:-1] + '"'),
        (b"long", VERIFIER.replace("MDEy", "MDEy" * 200)),
    ],
)
def test_what_pgbouncer_could_not_read_is_left_out(name, verifier):
    users = users_of([(name, verifier), (b"good", VERIFIER)], Users(), os.urandom)
    assert users.open == {"good": VERIFIER}


def test_versions():
    assert parse_version("PgBouncer 1.18.0\nlibevent 2.1.12-stable\n") == (1, 18, 0)
    assert parse_version("PgBouncer 1.25\n") == (1, 25, 0)
    assert parse_version("psql (PostgreSQL) 17.1\n") is None


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("echo 'PgBouncer 1.16.1'", "is version 1.16.1, and 1.17.0 or later is needed"),
        ("echo 'something else'", "does not say that it is PgBouncer"),
        ("exit 3", "does not say that it is PgBouncer"),
    ],
)
def test_an_unusable_program_is_named_and_what_to_do(tmp_path, script, why):
    program = tmp_path / "pgbouncer"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    with pytest.raises(PoolerMissing, match=why) as caught:
        find_pooler(program)
    assert str(program) in str(caught.value)
    assert str(caught.value).endswith("Install it (`apt install pgbouncer`).")
    assert caught.value.path == program


def test_a_program_that_is_not_there_is_missing(tmp_path):
    with pytest.raises(PoolerMissing, match="does not run"):
        find_pooler(tmp_path / "pgbouncer")


def test_a_program_is_known_by_its_version(tmp_path):
    program = tmp_path / "pgbouncer"
    program.write_text("#!/bin/sh\necho 'PgBouncer 1.24.1'\n")
    program.chmod(0o755)
    found = find_pooler(program)
    assert (found.path, found.version, found.version_text) == (program, (1, 24, 1), "1.24.1")
    assert found.version > MINIMUM


def test_a_failure_says_which_it_was():
    """Not every one is of a start."""
    assert str(PoolerFailed("ep-one", "does not run")) == "PgBouncer of ep-one does not run."
    taken = PoolerPortTaken("ep-one", 6543, "FATAL no luck")
    assert str(taken) == (
        "PgBouncer of ep-one did not start: port 6543 is taken by another program; end that, or choose another."
        " It said:\nFATAL no luck"
    )


def test_a_record_is_read_back_and_half_a_record_is_none(tmp_path):
    record = PoolerRecord(SPEC, ProcessIdentity(7, 8, "boot", "/home"), up=True, spawned_at=1.5)
    save(record, tmp_path / "pooler.json")
    assert load(tmp_path / "pooler.json") == record
    text = (tmp_path / "pooler.json").read_text()
    for end in range(len(text)):
        (tmp_path / "half.json").write_text(text[:end])
        assert load(tmp_path / "half.json") is None


def test_a_log_lies_where_logs_lie(tmp_path):
    here = pooler_places(tmp_path / "run", "ep-one", None)
    assert here.log == here.home / "pooler.log"
    assert pooler_places(tmp_path / "run", "ep-one", tmp_path / "log").log == tmp_path / "log/ep-one.pooler.log"


@given(names)
def test_a_name_is_of_a_role_of_users_if_postgres_would_not_cut_it_off(name):
    assert may_be_role(name) == (name not in PLATFORM_ROLES)
    assert not may_be_role(name + "a" * 63)


@pytest.mark.parametrize("name", ["", *PLATFORM_ROLES, "half a character \ud800", "zero\0", "a" * 64])
def test_what_cannot_be_a_role_of_users(name):
    assert not may_be_role(name)
