"""Reading a postmaster's log."""

from __future__ import annotations

from lamplighter.compute import logs
from lamplighter.compute.places import Places

TAKEN = """\
2026-01-01 00:00:00.000 GMT [1] LOG:  could not bind IPv4 address "127.0.0.1": Address already in use
2026-01-01 00:00:00.000 GMT [1] HINT:  Is another postmaster already running on port 5433?
2026-01-01 00:00:00.000 GMT [1] FATAL:  could not create any TCP/IP sockets
"""
SETTING = """\
2026-01-01 00:00:00.000 GMT [1] LOG:  invalid value for parameter "work_mem": "x"
2026-01-01 00:00:00.000 GMT [1] FATAL:  configuration file "/r/postgresql.conf" contains errors
"""


def places(tmp_path):
    return Places(tmp_path, tmp_path / "postgres.log")


def test_causes_are_read():
    assert logs.cause(TAKEN) == "could not create any TCP/IP sockets"
    assert logs.cause("LOG:  ready") == ""
    assert logs.cause("FATAL:  the database system is starting up") == ""
    assert logs.port_taken(TAKEN)
    assert not logs.port_taken(SETTING)
    assert logs.bad_settings(SETTING)[0] == 'invalid value for parameter "work_mem": "x"'
    assert logs.bad_settings(TAKEN) == []


def test_only_what_is_new_is_read(tmp_path):
    where = places(tmp_path)
    assert (logs.size(where), logs.read_end(where)) == (0, "")
    where.log.write_text("old\n")
    since = logs.size(where)
    with where.log.open("a") as file:
        file.write("new\n" * 3)
    assert logs.read_end(where, since) == "new\nnew\nnew"
    where.log.write_text("x\n")
    assert logs.read_end(where, since) == "x"


def test_a_log_that_grew_is_cut_under_its_writer(tmp_path):
    where = places(tmp_path)
    with where.log.open("ab", buffering=0) as writer:
        writer.write(b"a" * 100)
        assert not logs.rotate(where, 100)
        writer.write(b"b")
        assert logs.rotate(where, 100)
        writer.write(b"after")
    assert where.log.read_bytes() == b"after"
    assert where.old_log.read_bytes() == b"a" * 100 + b"b"
