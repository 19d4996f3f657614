"""From addresses to sinks, those of others included."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from lamplighter.keys.errors import PolicyError
from lamplighter.keys.records import SinkRef
from lamplighter.keys.sinks.base import Sink
from lamplighter.keys.sinks.registry import BUILT_IN, kinds, parse_sink, sink_class, sink_of


@pytest.mark.parametrize("kind", BUILT_IN)
def test_every_kind_that_comes_with_us_is_a_sink(kind: str):
    assert issubclass(sink_class(kind), Sink)


@pytest.mark.parametrize("address", ["", "dotenv", "dotenv:", ":x", "no-such-store:x"])
def test_an_address_of_nothing_says_what_there_is(address: str):
    with pytest.raises(PolicyError) as raised:
        parse_sink(address)
    assert "dotenv" in str(raised.value.hint)


@pytest.mark.parametrize(
    "address",
    [
        "github-org:octo/KEY?visibility=all",
        "aws-secret:ci/neon?profile=ops&region=eu-central-1",
        "aws-ssm:/ci/neon?region=eu-central-1",
        "vault:kv/ci#key?namespace=team",
        "kubernetes:default/neon#key?context=prod",
        "vercel:shop/KEY?targets=preview,production&team_id=team_1&type=encrypted",
        "gitlab:group/shop/KEY?environment_scope=production&hidden=true&protected=true",
        "command:cat ?timeout=5&env=A,B",
    ],
)
def test_options_in_an_address_are_known_to_the_process_that_goes_on(address: str):
    """What `--to` takes: the journal has the rest of the options beside the address."""
    first = parse_sink(address)
    again = sink_of(SinkRef.of(first))
    assert (again.describe(), again.options, again.capabilities) == (
        first.describe(),
        first.options,
        first.capabilities,
    )
    for word in address.partition("?")[2].replace("&", ",").split(","):
        assert word.rpartition("=")[2] in f"{first.describe()} {first.options}"


@pytest.mark.parametrize("address", ["github-org:octo/KEY?visible=all", "aws-ssm:/a?zone=b", "dotenv:.env#KEY?a=b"])
def test_an_option_that_is_none_is_refused(address: str):
    with pytest.raises(PolicyError):
        parse_sink(address)


@pytest.fixture
def others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package of somebody else's, as it would be installed."""
    (tmp_path / "theirs.py").write_text(
        "from unit.keys.simulation import SimSink\n"
        "class Store(SimSink):\n"
        "    @classmethod\n"
        "    def parse(cls, address, options):\n"
        "        return cls(None, address)\n"
    )
    about = tmp_path / "theirs-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1\n")
    (about / "entry_points.txt").write_text(
        "[lamplighter.sinks]\n"
        "theirs = theirs:Store\nbroken = theirs:Nothing\nother = pathlib:Path\ndotenv = theirs:Store\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("theirs", None)


@pytest.mark.usefixtures("others")
def test_a_sink_of_others_is_found_by_its_entry_point():
    assert "theirs" in kinds()
    assert parse_sink("theirs:place").describe() == "theirs:place"


@pytest.mark.usefixtures("others")
def test_an_entry_point_that_is_no_sink_is_said():
    for kind in ("broken", "other"):
        with pytest.raises(PolicyError, match=kind):
            parse_sink(f"{kind}:place")


@pytest.mark.usefixtures("others")
def test_nobody_replaces_a_sink_that_comes_with_us():
    assert sink_class("dotenv").__module__ == "lamplighter.keys.sinks.dotenv"
