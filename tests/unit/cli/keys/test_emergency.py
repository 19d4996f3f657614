"""Which key leaked, on a server in memory that notes uses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lamplighter.cli.keys.leaking import needs_another
from lamplighter.keys import records as rec
from lamplighter.keys.emergency import Cut, by_text, by_value, cut, what_breaks
from lamplighter.keys.errors import Busy, JournalBroken, MinterUnfit, NeonFailed, NotProven, PolicyError
from lamplighter.keys.fold import State
from lamplighter.keys.journal import Journal, read_journal
from lamplighter.keys.manager import UNMANAGED, Manager, Target, read_state
from lamplighter.keys.naming import Naming
from lamplighter.keys.neon import Identity, KeyServer, MintedKey
from lamplighter.keys.plan import LiveKey
from lamplighter.keys.records import Scope, SinkRef
from lamplighter.keys.rotate import Clock
from lamplighter.keys.sinks.registry import parse_sink
from lamplighter.keys.value import KeyBuffer

NOW = datetime(2026, 11, 22, tzinfo=UTC)
PERSONAL = Scope(kind="personal")
STORE = "dotenv:/tmp/a.env#KEY"


class Server(KeyServer):
    """Key 1 is the one that is worked with. `busy` keys are used by somebody else all the time."""

    def __init__(self) -> None:
        self.values = {1: b"value-1", 2: b"value-2", 3: b"value-3"}
        self.keys = {each: LiveKey(id=each, name=f"key-{each}") for each in self.values}
        self.uses = 0
        self.busy: set[int] = set()
        self.account = "me"
        #: Keys that somebody else uses by chance right after we tried one; our own use is noted late then.
        self.chance: list[int] = []

    def use(self, key_id: int) -> None:
        self.uses += 1
        self.keys[key_id] = replace(self.keys[key_id], last_used_at=f"use {self.uses}")

    def mint(self, scope: Scope, name: str) -> MintedKey:
        raise NotImplementedError

    def list(self, scope: Scope) -> Mapping[int, LiveKey]:
        for each in (1, *self.busy):
            self.use(each)
        return dict(self.keys)

    def revoke(self, scope: Scope, key_id: int) -> bool:
        return self.keys.pop(key_id, None) is not None

    def identity(self) -> Identity:
        return Identity(account_id=self.account, method="api_key_user")

    def check(self, scope: Scope, key_id: int, value: KeyBuffer) -> Identity:
        raise NotImplementedError

    def try_key(self, value: KeyBuffer) -> Identity:
        with value.reveal() as view:
            found = next((each for each in self.keys if self.values[each] == bytes(view)), None)
        if found is None:
            raise NotProven("Neon does not accept the new key: HTTP 401")
        self.use(self.chance.pop() if self.chance else found)
        return self.identity()

    def mac(self, salt: bytes) -> str:
        return KeyBuffer(bytearray(b"value-1")).mac(salt)

    def sign_in(self, value: KeyBuffer) -> KeyServer:
        raise NotImplementedError


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    found = Manager(
        server=Server(),
        journal=Journal(tmp_path / "state"),
        minter_id=1,
        clock=Clock(now=lambda: NOW, monotonic=lambda: 0.0, sleep=lambda seconds: None),
    )
    with found.journal:
        yield found


def know(
    manager: Manager,
    key_id: int,
    *,
    value: bytes | None = None,
    sinks: tuple[str, ...] = (STORE,),
    account: str | None = None,
) -> None:
    mac = None if value is None else KeyBuffer(bytearray(value)).mac(manager.journal.salt)
    refs = tuple(SinkRef(each) for each in sinks)
    name = f"key-{key_id}"
    manager.journal.append(
        rec.Adopted(
            at=NOW, lineage="ci", key_id=key_id, name=name, scope=PERSONAL, sinks=refs, mac=mac, account=account
        )
    )


def value(text: bytes) -> KeyBuffer:
    return KeyBuffer(bytearray(text))


class TestByValue:
    def test_the_journal_knows_it_without_using_it(self, manager: Manager) -> None:
        know(manager, 2, value=b"value-2")
        leak = by_value(value(b"value-2"), manager, manager.journal.state)
        assert (leak.key_id, leak.how, leak.lineage, leak.holders) == (2, "journal", "ci", (STORE,))
        assert leak.last_used_at is None

    def test_one_that_is_revoked_already_is_still_known(self, manager: Manager) -> None:
        know(manager, 2, value=b"value-2")
        manager.server.revoke(PERSONAL, 2)
        leak = by_value(value(b"value-2"), manager, manager.journal.state)
        assert not leak.live
        assert what_breaks(leak) == ["key 2 (key-2) is not live any more"]

    def test_any_other_shows_by_its_use(self, manager: Manager) -> None:
        leak = by_value(value(b"value-3"), manager, manager.journal.state)
        assert (leak.key_id, leak.how, leak.lineage) == (3, "use", None)

    def test_keys_in_use_elsewhere_are_told_from_it(self, manager: Manager) -> None:
        assert isinstance(manager.server, Server)
        manager.server.busy = {2}
        assert by_value(value(b"value-3"), manager, manager.journal.state).key_id == 3

    def test_one_use_that_moves_by_chance_convicts_nobody(self, manager: Manager) -> None:
        """Neon may note our own use late, and another key is used in just that second."""
        assert isinstance(manager.server, Server)
        # The first use only shows that it is live.
        manager.server.chance = [2, 3]
        assert by_value(value(b"value-3"), manager, manager.journal.state).key_id == 3

    def test_one_that_others_use_as_well_cannot_be_told(self, manager: Manager) -> None:
        assert isinstance(manager.server, Server)
        manager.server.busy = {2, 3}
        with pytest.raises(NeonFailed, match="cannot be told") as raised:
            by_value(value(b"value-3"), manager, manager.journal.state)
        assert "lamp keys list" in (raised.value.hint or "")

    def test_the_minter_of_another_account_cannot_say_that_it_is_dead(self, manager: Manager) -> None:
        """Nor can one of another server: its list never had the key."""
        assert isinstance(manager.server, Server)
        know(manager, 2, value=b"value-2", account="somebody else")
        manager.server.keys.pop(2)
        with pytest.raises(MinterUnfit, match="of account somebody else"):
            by_value(value(b"value-2"), manager, manager.journal.state)
        with pytest.raises(MinterUnfit, match="of account somebody else"):
            by_text("2", manager, manager.journal.state)

    def test_a_dead_one_is_nothing_to_revoke(self, manager: Manager) -> None:
        with pytest.raises(NeonFailed, match="not live") as raised:
            by_value(value(b"value-9"), manager, manager.journal.state)
        assert raised.value.status == 404

    def test_the_minter_itself(self, manager: Manager) -> None:
        with pytest.raises(PolicyError, match="the minter itself"):
            by_value(value(b"value-1"), manager, manager.journal.state)


class TestByText:
    def find(self, manager: Manager, text: str) -> object:
        return by_text(text, manager, manager.journal.state)

    def test_an_id(self, manager: Manager) -> None:
        assert self.find(manager, "3").name == "key-3"

    def test_a_name_without_its_rotation_id(self, manager: Manager) -> None:
        assert isinstance(manager.server, Server)
        manager.server.keys[3] = LiveKey(id=3, name="ci-2026-Q4.abcdefghij")
        assert self.find(manager, "ci-2026-Q4").key_id == 3

    def test_a_name_of_several(self, manager: Manager) -> None:
        assert isinstance(manager.server, Server)
        manager.server.keys[3] = LiveKey(id=3, name="key-2")
        with pytest.raises(PolicyError, match="2, 3"):
            self.find(manager, "key-2")

    @pytest.mark.parametrize("text", ["99", "nobody"])
    def test_none(self, manager: Manager, text: str) -> None:
        with pytest.raises(NeonFailed) as raised:
            self.find(manager, text)
        assert raised.value.status == 404


class TestCut:
    def test_although_stores_hold_it(self, manager: Manager) -> None:
        know(manager, 2, value=b"value-2")
        assert cut(by_text("2", manager, manager.journal.state), manager, manager.journal.state).ours
        assert 2 not in manager.server.list(PERSONAL)
        kinds = [each.kind for each in manager.journal.records]
        assert kinds == ["adopt", "revoke_intent", "revoked"]

    def test_one_that_no_lineage_has_is_told_of_apart(self, manager: Manager) -> None:
        know(manager, 2)
        assert cut(by_text("3", manager, manager.journal.state), manager, manager.journal.state).ours
        assert {each.lineage for each in manager.journal.records[1:]} == {UNMANAGED}
        assert manager.journal.state.lineage("ci").current == 2

    def test_never_our_own(self, manager: Manager) -> None:
        with pytest.raises(MinterUnfit):
            cut(by_text("1", manager, manager.journal.state), manager, manager.journal.state)
        assert 1 in manager.server.list(PERSONAL)


class TestWithoutTheJournal:
    """Somebody else may use the key this very moment: nothing that is about writing it down may be in the way."""

    @pytest.fixture
    def apart(self, manager: Manager) -> Manager:
        """Another process: the lock is not its own."""
        know(manager, 2, value=b"value-2")
        other = replace(manager, journal=Journal(manager.journal.directory))
        assert other.journal.state.lineages == {}
        return other

    def cut(self, manager: Manager) -> Cut:
        state = read_state(manager.journal.directory)
        return cut(by_value(value(b"value-2"), manager, state), manager, state)

    def test_while_another_process_has_the_lock(self, manager: Manager, apart: Manager) -> None:
        done = self.cut(apart)
        assert (done.ours, done.unrecorded, type(done.why)) == (True, ("revoke_intent", "revoked"), Busy)
        assert 2 not in manager.server.list(PERSONAL)
        assert [each.kind for each in manager.journal.records] == ["adopt"]

    def test_what_the_lock_kept_from_the_journal_is_written_when_it_is_free_again(
        self, manager: Manager, apart: Manager
    ) -> None:
        class Freeing(Server):
            """By the time that Neon answers, the other process has ended."""

            def revoke(self, scope: Scope, key_id: int) -> bool:
                manager.journal._close()
                return super().revoke(scope, key_id)

        apart.server = Freeing()
        assert self.cut(apart) == Cut(ours=True)
        kinds = [each.kind for each in read_journal(apart.journal.directory)]
        assert kinds == ["adopt", "revoke_intent", "revoked"]

    def test_a_journal_that_makes_no_sense(self, manager: Manager, apart: Manager) -> None:
        """Then nobody knows its lineage: it is known by its id alone."""
        path = apart.journal.directory / "journal.jsonl"
        path.write_bytes(b"?\n" + path.read_bytes())
        manager.journal._close()
        done = cut(by_text("2", apart, State()), apart, State())
        assert (done.ours, type(done.why)) == (True, JournalBroken)
        assert done.unrecorded == ("adopt", "revoke_intent", "revoked")

    def test_still_never_our_own(self, apart: Manager) -> None:
        state = read_state(apart.journal.directory)
        with pytest.raises(PolicyError, match="the minter itself"):
            by_value(value(b"value-1"), apart, state)
        with pytest.raises(MinterUnfit):
            cut(by_text("1", apart, state), apart, state)
        assert 1 in apart.server.list(PERSONAL)


class TestRevoke:
    def revoke(self, manager: Manager, key_id: int, **options: bool) -> bool:
        key = manager.server.list(PERSONAL)[key_id]
        return manager.revoke(key, PERSONAL, reason="somebody asked", **options)

    def test_what_a_store_may_hold_stays(self, manager: Manager) -> None:
        know(manager, 2)
        with pytest.raises(NotProven, match="may still hold key 2"):
            self.revoke(manager, 2)
        assert [each.kind for each in manager.journal.records] == ["adopt"]

    def test_unless_it_is_forced(self, manager: Manager) -> None:
        know(manager, 2)
        assert self.revoke(manager, 2, forced=True)

    def test_the_last_of_a_lineage_stays(self, manager: Manager) -> None:
        know(manager, 2, sinks=())
        with pytest.raises(NotProven, match="last live key"):
            self.revoke(manager, 2)

    def test_a_key_that_nobody_knows(self, manager: Manager) -> None:
        assert self.revoke(manager, 3)
        assert manager.names(manager.journal.state) == ()

    def test_one_that_another_machine_made_for_a_lineage_stays(self, manager: Manager) -> None:
        """Its stores may hold it, though this journal does not know."""
        know(manager, 2)
        assert isinstance(manager.server, Server)
        manager.server.keys[3] = LiveKey(id=3, name="key-2.abcdefghij")
        with pytest.raises(NotProven, match="has a name of ci"):
            self.revoke(manager, 3)
        assert [each.kind for each in manager.journal.records] == ["adopt"]
        assert self.revoke(manager, 3, forced=True)

    def test_what_they_are_told_of_under_is_no_lineage_of_anybody(self, manager: Manager) -> None:
        """Its keys are revoked without asking whether a store holds them."""
        with pytest.raises(PolicyError, match="keys without a lineage"):
            manager.adopt(manager.server.list(PERSONAL)[3], PERSONAL, lineage=UNMANAGED, sinks=[])
        with pytest.raises(PolicyError, match="keys without a lineage"):
            manager.rotate([Target(lineage=UNMANAGED, naming=Naming(UNMANAGED), scope=PERSONAL)])

    def test_what_was_interrupted_before_its_intent_was_written_is_done_the_next_time(self, manager: Manager) -> None:
        manager.journal.append(rec.Adopted(at=NOW, lineage=UNMANAGED, key_id=3, name="key-3", scope=PERSONAL, sinks=()))
        assert self.revoke(manager, 3)

    def test_not_with_the_minter_of_another_account(self, manager: Manager) -> None:
        """A key of the same id there is another one."""
        know(manager, 2, account="somebody else")
        with pytest.raises(MinterUnfit, match="of account somebody else"):
            self.revoke(manager, 2, forced=True)
        assert isinstance(manager.server, Server)
        assert 2 in manager.server.keys


class TestAdopt:
    def adopt(self, manager: Manager, key_id: int, content: bytes, tmp_path: Path) -> object:
        path = tmp_path / "a.env"
        path.write_bytes(b"KEY=" + content + b"\n")
        path.chmod(0o600)
        key = manager.server.list(PERSONAL)[key_id]
        return manager.adopt(key, PERSONAL, lineage="other", sinks=[parse_sink(f"dotenv:{path}#KEY")])

    def test_it_is_known_by_its_value_and_its_account(self, manager: Manager, tmp_path: Path) -> None:
        self.adopt(manager, 3, b"value-3", tmp_path)
        assert manager.journal.state.id_of(value(b"value-3").mac(manager.journal.salt)) == 3
        assert manager.journal.state.lineage("other").account == "me"

    @pytest.mark.parametrize("content", [b"value-1", b"value-2"])
    def test_a_store_that_holds_another_key(self, manager: Manager, tmp_path: Path, content: bytes) -> None:
        """Else the leak of that other one would have this one revoked."""
        know(manager, 2, value=b"value-2")
        with pytest.raises(NotProven, match="not key 3"):
            self.adopt(manager, 3, content, tmp_path)
        assert len(manager.journal.records) == 1


class TestAnother:
    """What is put in the place of a key that leaked."""

    def needed(self, manager: Manager, key_id: int) -> bool:
        state = manager.journal.state
        return needs_another(by_text(str(key_id), manager, state), state)

    def test_where_a_store_may_hold_it(self, manager: Manager) -> None:
        know(manager, 2)
        assert self.needed(manager, 2)

    def test_not_where_another_is_in_its_place_already(self, manager: Manager) -> None:
        """A scanner that finds a key of last year must not take this year's out of use."""
        know(manager, 2, sinks=())
        know(manager, 3)
        assert isinstance(manager.server, Server)
        manager.server.keys.pop(2)
        manager.journal.append(rec.Revoked(at=NOW, lineage="ci", key_id=2))
        assert not self.needed(manager, 2)


class TestOwnKey:
    """Without a policy nobody says which key it is that works here."""

    def know(self, manager: Manager) -> int | None:
        manager.minter_id = None
        return manager.know_own(manager.journal.state)

    def test_by_its_use(self, manager: Manager) -> None:
        assert self.know(manager) == 1

    def test_the_only_one(self, manager: Manager) -> None:
        assert isinstance(manager.server, Server)
        manager.server.keys = {1: manager.server.keys[1]}
        assert self.know(manager) == 1
        assert manager.server.uses == 1

    def test_another_in_use_all_the_time(self, manager: Manager) -> None:
        assert isinstance(manager.server, Server)
        manager.server.busy = {2}
        assert self.know(manager) is None
        assert manager.maybe_own(manager.journal.state) == {1, 2}

    def test_the_journal_knows_it(self, manager: Manager) -> None:
        know(manager, 1, value=b"value-1")
        assert self.know(manager) == 1
        assert isinstance(manager.server, Server)
        assert manager.server.uses == 0

    def test_where_it_is_not_known_nothing_that_could_be_it_is_revoked(self, manager: Manager) -> None:
        assert isinstance(manager.server, Server)
        manager.server.busy = {2}
        manager.minter_id = None
        with pytest.raises(MinterUnfit, match="may be the one"):
            manager.revoke(manager.server.keys[3], PERSONAL, reason="somebody asked")
        assert 3 in manager.server.keys
        assert manager.journal.records == []
