"""What `lamp keys init` writes, and what every verb does for the minter key that it holds."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from lamplighter.cli.errors import Failure
from lamplighter.cli.keys.common import KeySession, keys_command
from lamplighter.cli.keys.setup import _keep_what_is_there, _write_policy
from lamplighter.keys.harden import _PR_GET_DUMPABLE, _prctl
from lamplighter.keys.manager import load_policy
from lamplighter.keys.minter import Minter


def test_a_policy_is_read_as_it_was_written(tmp_path: Path) -> None:
    minter = 'file:/home/a "b"\\c/minter.key'
    fact = {"organizations": [], "server": "https://neon.example/api/v2", "minter": minter, "key_id": 7}
    _write_policy(tmp_path / "lamp-keys.toml", fact, None)
    found = load_policy(tmp_path / "lamp-keys.toml").neon
    assert (found.minter, found.minter_id, found.base_url) == (minter, 7, fact["server"])


@pytest.mark.parametrize("content", [b"napi_key", b"no key at all", b""])
def test_whatever_is_in_the_place_of_the_minter_stays(tmp_path: Path, content: bytes) -> None:
    """Even what cannot be read as a key."""
    path = tmp_path / "minter.key"
    minter = Minter.parse(f"file:{path}")
    _keep_what_is_there(minter, replace=False)
    path.write_bytes(content)
    with pytest.raises(Failure, match="holds something already"):
        _keep_what_is_there(minter, replace=False)
    _keep_what_is_there(minter, replace=True)


def test_no_other_program_may_look_into_one_that_may_hold_the_minter_key(tmp_path: Path) -> None:
    seen = []

    @click.command()
    @keys_command(server=False)
    def probe(session: KeySession) -> None:
        seen.append(_prctl(_PR_GET_DUMPABLE, 0))

    before = _prctl(_PR_GET_DUMPABLE, 0)
    assert CliRunner().invoke(probe, ["--state-dir", str(tmp_path)]).exit_code == 0
    assert seen == [0]
    assert _prctl(_PR_GET_DUMPABLE, 0) == before
