"""Logical replication is the project's switch: who asked for it gets it, nobody else does. It keeps awake."""

from __future__ import annotations

from contextlib import closing

import psycopg
import pytest
from psycopg.pq import ExecStatus

from support.lamp import Lamp, sql, temporary_lamp, uri_of, wait_for


def replicates(uri: str) -> bool:
    """Whether a replication connection to the database is let in."""
    try:
        with psycopg.connect(f"{uri}&replication=database", autocommit=True):
            return True
    except psycopg.OperationalError as error:
        if "WAL sender" in str(error):
            return False
        raise


def test_roles_replicate_once_the_project_has_it_enabled(lamp: Lamp):
    made = lamp.project()
    project_id, uri = made["project"]["id"], uri_of(made)
    assert sql(uri, "show wal_level") == [("replica",)]
    assert not replicates(uri)

    changed = lamp.call(
        "PATCH", f"/projects/{project_id}", {"project": {"settings": {"enable_logical_replication": True}}}
    )
    assert [one["action"] for one in changed["operations"]] == ["apply_config"]
    lamp.settle(project_id)
    wait_for(lambda: sql(uri, "show wal_level") == [("logical",)], what="the new WAL level")
    assert replicates(uri)

    branch = lamp.branch(project_id, "child")
    assert replicates(uri_of(branch))
    with pytest.raises(AssertionError, match="400"):
        lamp.call("PATCH", f"/projects/{project_id}", {"project": {"settings": {"enable_logical_replication": False}}})
    lamp.call("DELETE", f"/projects/{project_id}")


class Subscriber:
    """Follows what happens to a publication, from now on, by a connection for replication."""

    def __init__(self, connection: psycopg.Connection, publication: str) -> None:
        self._wire = connection.pgconn
        self._say("CREATE_REPLICATION_SLOT listening TEMPORARY LOGICAL pgoutput", ExecStatus.TUPLES_OK)
        options = f"proto_version '1', publication_names '{publication}'"
        self._say(f"START_REPLICATION SLOT listening LOGICAL 0/0 ({options})", ExecStatus.COPY_BOTH)

    def _say(self, command: str, expected: ExecStatus) -> None:
        result = self._wire.exec_(command.encode())
        assert result.status == expected, result.error_message.decode()

    def hears(self, word: str) -> bool:
        """Whether this is what has come. Raises psycopg.OperationalError when it was cut off."""
        self._wire.consume_input()
        length, message = self._wire.get_copy_data(1)
        assert length >= 0, "the stream has ended"
        return word.encode() in bytes(message or b"")


def test_a_subscriber_keeps_its_endpoint_awake():
    """And no other one: as soon as it ends, its endpoint falls asleep like those without clients."""
    with temporary_lamp(driver="copy", options=("--suspend-after", "1")) as lamp:
        made = lamp.project(settings={"enable_logical_replication": True})
        project_id, endpoint_id, uri = made["project"]["id"], made["endpoints"][0]["id"], uri_of(made)

        def state(project_id: str, endpoint_id: str) -> str:
            return str(lamp.call("GET", f"/projects/{project_id}/endpoints/{endpoint_id}")["endpoint"]["current_state"])

        sql(uri, "create table words (word text)")
        sql(uri, "create publication news for table words")
        # Its `with` would end with a commit, which cannot be said amid a stream.
        with closing(psycopg.connect(f"{uri}&replication=database", autocommit=True)) as connection:
            subscriber = Subscriber(connection, "news")
            sql(uri, "insert into words values ('before')")
            wait_for(lambda: subscriber.hears("before"), what="the first word")

            other = lamp.project()
            wait_for(
                lambda: state(other["project"]["id"], other["endpoints"][0]["id"]) == "idle",
                what="the other's suspension",
            )
            # Nobody has been at either for as long, but for the subscriber.
            assert state(project_id, endpoint_id) == "active"
            sql(uri, "insert into words values ('after')")
            wait_for(lambda: subscriber.hears("after"), what="the second word")

        wait_for(lambda: state(project_id, endpoint_id) == "idle", what="the suspension")
