"""Identity of processes, on this very process."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from lamplighter.compute import process
from lamplighter.compute.process import PostgresProcess, ProcessIdentity

identities = st.builds(
    ProcessIdentity,
    pid=st.integers(1, 4_000_000),
    started_at=st.integers(0),
    boot_id=st.text(),
    data_dir=st.text(),
)


@given(identities)
def test_an_identity_survives_its_record(identity):
    assert process.from_json(process.to_json(identity)) == identity


def test_a_living_process_is_known_and_another_with_its_pid_is_not(tmp_path):
    identity = process.identify(os.getpid(), tmp_path)
    assert process.is_alive(identity)
    assert not process.is_alive(replace(identity, started_at=identity.started_at + 1))
    assert not process.is_alive(replace(identity, boot_id="another"))


def test_what_is_not_there_has_no_identity():
    assert process.identify(2**22 + 1, Path("/")) is None
    assert process.start_ticks(2**22 + 1) is None
    assert process.children(2**22 + 1) == []
    assert process.proportional_memory(2**22 + 1) is None
    assert process.kill_all([2**22 + 1]) == []


def test_processes_of_a_directory_are_told_by_what_it_is_or_is_called_in_their_namespace(tmp_path):
    found = tmp_path.stat()
    inside = PostgresProcess(1, (found.st_dev, found.st_ino), "/elsewhere", ("postgres", "-D", "x"))
    hidden = PostgresProcess(2, (0, 0), str(tmp_path), ("postgres: writer",))
    stranger = PostgresProcess(3, (0, 0), "/elsewhere", ("postgres", "-D", "x"))
    on_it = process.on_directory([inside, hidden, stranger], tmp_path)
    assert on_it == [inside, hidden]
    assert process.postmasters(on_it) == [inside]
    removed = PostgresProcess(4, (1, 2), f"{tmp_path}/gone (deleted)", ("postgres: writer",))
    assert process.on_directory([inside, removed], tmp_path / "gone") == [removed]
