"""The journal on disk: what a crash, a full disk or a stranger can do to it."""

from __future__ import annotations

import os
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lamplighter.keys import records as rec
from lamplighter.keys.errors import Busy, JournalBroken
from lamplighter.keys.journal import FILE, Journal, read_journal
from lamplighter.keys.records import Scope, write_record

AT = datetime(2026, 1, 1, tzinfo=UTC)


def intent(rid: str) -> rec.MintIntent:
    scope = Scope(kind="personal")
    return rec.MintIntent(at=AT, lineage="ci", rid=rid, name=f"lamp.ci.{rid}", scope=scope, sinks=(), soak=0, timeout=1)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A state directory with one line in its journal."""
    with Journal(tmp_path / "state") as journal:
        journal.append(intent("a"))
    return tmp_path / "state"


def test_it_is_ours_alone(place: Path) -> None:
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert {stat.S_IMODE(each.stat().st_mode) for each in place.iterdir()} == {0o600}


def test_a_directory_that_others_may_read_is_closed_to_them(place: Path) -> None:
    place.chmod(0o755)
    with Journal(place):
        assert stat.S_IMODE(place.stat().st_mode) == 0o700


def test_it_is_read_as_it_was_written(place: Path) -> None:
    with Journal(place) as journal:
        journal.append(intent("b"))
        salt = journal.salt
    with Journal(place) as journal:
        assert journal.records == [intent("a"), intent("b")]
        assert list(journal.state.lineage("ci").attempts) == ["a", "b"]
        assert (len(salt), journal.salt) == (32, salt)
    assert read_journal(place) == (intent("a"), intent("b"))


@pytest.mark.parametrize("length", range(1, len(write_record(intent("b")))))
def test_a_torn_last_line_never_counted(place: Path, length: int) -> None:
    """Wherever it was torn: it is cut off, and the next line is whole."""
    with (place / FILE).open("ab") as file:
        file.write(write_record(intent("b"))[:length])
    assert read_journal(place) == (intent("a"),)
    with Journal(place) as journal:
        assert journal.records == [intent("a")]
        journal.append(intent("c"))
    assert read_journal(place) == (intent("a"), intent("c"))


def test_zeros_that_a_file_system_left_never_counted(place: Path) -> None:
    with (place / FILE).open("ab") as file:
        file.write(b"\0" * 40 + write_record(intent("b"))[40:])
    with Journal(place) as journal:
        assert journal.records == [intent("a")]


@pytest.mark.parametrize(
    "line", [b"nonsense\n", b"\n", b'{"v":1,"kind":"minted"}\n', b'{"v":9}\n', write_record(intent("a"))]
)
def test_a_broken_line_in_the_middle_is_an_error_that_names_it(place: Path, line: bytes) -> None:
    content = (place / FILE).read_bytes()
    (place / FILE).write_bytes(content + line + write_record(intent("b")))
    with pytest.raises(JournalBroken) as raised, Journal(place):
        pass
    assert raised.value.line == 2
    assert (place / FILE).read_bytes() == content + line + write_record(intent("b"))


def test_a_record_that_cannot_follow_is_not_written(place: Path) -> None:
    content = (place / FILE).read_bytes()
    with Journal(place) as journal, pytest.raises(ValueError):
        journal.append(intent("a"))
    assert (place / FILE).read_bytes() == content


def test_a_second_process_is_told_that_it_is_busy(place: Path) -> None:
    with Journal(place), pytest.raises(Busy), Journal(place):
        pass
    with Journal(place) as journal:
        assert journal.records


def test_it_may_be_entered_again_by_its_holder(place: Path) -> None:
    with Journal(place) as journal:
        with journal:
            journal.append(intent("b"))
        journal.append(intent("c"))
        with pytest.raises(Busy), Journal(place):
            pass


def test_while_it_is_released_another_may_write_and_is_seen_afterwards(place: Path) -> None:
    with Journal(place) as journal:
        with journal.released(), Journal(place) as other:
            other.append(intent("b"))
        assert list(journal.state.lineage("ci").attempts) == ["a", "b"]
        journal.append(intent("c"))
    assert len(read_journal(place)) == 3


def test_a_link_in_place_of_the_journal_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("")
    place = tmp_path / "state"
    place.mkdir()
    (place / FILE).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Exception, match="cannot keep"), Journal(place):
        pass


def test_without_its_salt_a_journal_with_keys_is_broken(place: Path) -> None:
    """A new salt would make every stored key look like a stranger's."""
    with Journal(place) as journal:
        journal.append(rec.Minted(at=AT, lineage="ci", rid="a", key_id=1, mac="m"))
    (place / "salt").unlink()
    with pytest.raises(JournalBroken, match="salt"), Journal(place):
        pass


def test_its_files_are_not_inherited(place: Path) -> None:
    with Journal(place) as journal:
        assert not os.get_inheritable(journal._file)
        assert not os.get_inheritable(journal._lock)
