"""What every sink does, whatever its store: a class of tests that the tests of each sink inherit.

Subclasses give the fixtures `sink`, `held` and `neighbours`; what stores that speak HTTP do when those fail is
`support.stores.failing`.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from lamplighter.keys.errors import PolicyError
from lamplighter.keys.records import SinkRef
from lamplighter.keys.sinks.base import Receipt, Sink
from lamplighter.keys.sinks.registry import sink_of
from lamplighter.keys.value import KeyBuffer
from support.stores.leaks import leaks, logged

MARKER = "key 12, rotation abcdefghij"


def fresh() -> bytes:
    """A value as Neon makes them, and a canary: nothing else has it."""
    return f"napi_{secrets.token_hex(32)}".encode()


def write(sink: Sink, value: bytes) -> Receipt:
    with KeyBuffer(bytearray(value)) as buffer:
        receipt = sink.write(buffer, MARKER)
        # The driver still needs it.
        assert buffer
    return receipt


def content(buffer: KeyBuffer | None) -> bytes | None:
    if buffer is None:
        return None
    with buffer, buffer.reveal() as view:
        return bytes(view)


class SinkContract:
    """Inherit once for each sink, and give the three fixtures."""

    #: Values that are no key of Neon's, but that the store must give back as they are. Fewer where it cannot.
    awkward: ClassVar[tuple[bytes, ...]] = (
        b"x",
        b"with blanks  inside",
        b"a'b",
        b'a"b',
        b"back\\slash",
        b"$HOME `id` $(id)",
        b"#hash = ; & | <>",
        b"-----dashes",
        b"%41%00",
        "äöü €".encode(),
        b"y" * 2000,
    )
    #: Whether the sink can be made again from its address by the registry in this test.
    resumable: ClassVar[bool] = True

    @pytest.fixture
    def sink(self) -> Sink:
        """A place in a store that holds nothing yet."""
        raise NotImplementedError

    @pytest.fixture
    def held(self, sink: Sink) -> Callable[[], bytes | None]:
        """What the store really holds there, by other means than the sink's."""
        raise NotImplementedError

    @pytest.fixture
    def neighbours(self, sink: Sink) -> Callable[[], Any]:
        """All else that is in the store; there has to be something."""
        raise NotImplementedError

    def test_an_empty_place_holds_nothing(self, sink: Sink, held: Callable[[], bytes | None]):
        assert sink.check()
        assert sink.metadata() is None
        assert sink.read_back() is None
        assert held() is None

    def test_what_is_written_is_there(self, sink: Sink, held: Callable[[], bytes | None]):
        for value in (fresh(), fresh()):
            write(sink, value)
            same = held() == value
            assert same

    def test_what_is_written_is_read_back_where_the_store_can(self, sink: Sink):
        for value in (fresh(), fresh()):
            write(sink, value)
            found = content(sink.read_back())
            same = found == value
            assert same if sink.capabilities.readable else found is None

    def test_awkward_values_stay_as_they_are(self, sink: Sink, held: Callable[[], bytes | None]):
        for value in self.awkward:
            write(sink, value)
            assert held() == value
            if sink.capabilities.readable:
                assert content(sink.read_back()) == value

    def test_neighbours_stay(self, sink: Sink, neighbours: Callable[[], Any]):
        before = neighbours()
        assert before
        write(sink, fresh())
        write(sink, fresh())
        assert neighbours() == before
        sink.delete()
        assert neighbours() == before

    def test_the_store_says_that_the_secret_is_there(self, sink: Sink):
        write(sink, fresh())
        first = sink.metadata()
        assert first is not None
        receipt = write(sink, fresh())
        second = sink.metadata()
        assert second is not None
        if first.version is not None:
            assert second.version not in (None, first.version)
        if receipt.version is not None and second.version is not None:
            assert second.version == receipt.version
        if first.updated_at is not None:
            assert second.updated_at is not None
            assert second.updated_at >= first.updated_at
            assert second.updated_at.tzinfo is not None

    def test_the_value_before_is_kept_where_the_store_does_that(self, sink: Sink):
        first, second = fresh(), fresh()
        write(sink, first)
        write(sink, second)
        found = content(sink.previous())
        same = found == first
        assert same if sink.capabilities.versioned and sink.capabilities.readable else found is None

    def test_what_is_deleted_is_gone_and_may_be_deleted_again(self, sink: Sink, held: Callable[[], bytes | None]):
        write(sink, fresh())
        sink.delete()
        assert held() is None
        assert sink.metadata() is None
        sink.delete()

    def test_receipts_are_json_and_hold_nothing_of_the_value(self, sink: Sink):
        value = fresh()
        for receipt in (write(sink, value), sink.metadata()):
            assert receipt is not None
            text = json.dumps(receipt.as_json())
            assert Receipt.from_json(json.loads(text)) == receipt
            assert not leaks(text, value)

    def test_nothing_is_shown_of_the_value(self, sink: Sink, capfd: pytest.CaptureFixture[str]):
        value = fresh()
        with logged() as log:
            write(sink, value)
            content(sink.read_back())
            sink.metadata()
            said = [repr(sink), str(sink), sink.describe(), repr(sink.options), sink.check(), log.getvalue()]
        said += capfd.readouterr()
        leaked = leaks("\n".join(said), value)
        assert not leaked

    def test_another_process_makes_the_same_sink_from_what_a_journal_keeps(self, sink: Sink):
        if self.resumable:
            again = sink_of(SinkRef.of(sink))
            assert again == sink
            assert hash(again) == hash(sink)
            assert SinkRef.of(again) == SinkRef.of(sink)

    def test_an_unknown_option_is_an_error(self, sink: Sink):
        with pytest.raises(PolicyError):
            type(sink).parse(sink.describe(), {**sink.options, "no-such-option": "1"})

    def test_it_says_when_consumers_see_a_value(self, sink: Sink):
        assert sink.capabilities.effect
        assert sink.capabilities.soak >= 0
        assert sink.describe().startswith(sink.describe().partition(":")[0] + ":")
