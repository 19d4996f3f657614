"""What `lamp down` says of what it could not take away."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from lamplighter.platform.halt import stop_orphans
from lamplighter.storage.factory import open_volumes

#: It has every table, and changes none.
NFT = """#!/bin/sh
case "$1" in
-f) echo '/dev/stdin:1:1-2: Error: Operation not permitted' >&2; exit 1 ;;
esac
"""


def test_a_kernel_redirect_that_stays_is_told(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = place / "bin"
    programs.mkdir()
    (programs / "nft").write_text(NFT)
    (programs / "nft").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    open_volumes(place / "data" / "storage", driver="copy")
    orphans = asyncio.run(stop_orphans(place / "data"))
    assert orphans.problems == ("the kernel redirect cannot be changed: Operation not permitted",)
