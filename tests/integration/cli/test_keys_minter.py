"""A minter that is minted into a vault, and replaced like any other key: the real OpenBao and a real platform."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.lamp import Lamp
from support.waiting import wait_for

from .conftest import Cli

BAO = Path(sys.executable).with_name("bao")
PLACE = "vault:secret/neon/minter#key"


@pytest.fixture
def vault(tmp_path: Path) -> Iterator[str]:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    server = subprocess.Popen(
        [str(BAO), "server", "-dev", "-dev-root-token-id=root", f"-dev-listen-address={address}"],
        env={"HOME": str(tmp_path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:

        def up() -> bool:
            asked = [str(BAO), "status", f"-address=http://{address}"]
            return subprocess.run(asked, capture_output=True, check=False, env={"HOME": str(tmp_path)}).returncode == 0

        wait_for(up, seconds=60, what="OpenBao")
        yield f"http://{address}"
    finally:
        server.terminate()
        server.wait(30)


@pytest.mark.timeout(180)
def test_a_minter_is_minted_and_revokes_its_predecessor(cli: Cli, lamp: Lamp, tmp_path: Path, vault: str) -> None:
    """The key never leaves for another server than its own, and `rotate` goes on with the new one."""
    env = {
        "XDG_CONFIG_HOME": str(lamp.config_home),
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "HOME": str(tmp_path),
        "VAULT_ADDR": vault,
        "VAULT_TOKEN": "root",
    }
    made = cli("keys", "init", "--minter", PLACE, "--mint", "--no-policy", "-o", "json", env=env)
    assert made.status == 0, made.err
    said = json.loads(made.out)
    assert (said["server"], said["minter"], said["kind"]) == (lamp.url, PLACE, "personal")
    again = cli("keys", "init", "--minter", PLACE, "--mint", "--no-policy", env=env)
    assert (again.status, "give --replace" in again.err) == (4, True)
    assert cli("keys", "status", "--output", "json", env=env).out.count('"key_id"') == 1
    words = ["--minter", PLACE, "--api-host", lamp.url, "--output", "json"]
    rotated = cli("keys", "rotate", "minter", "--soak", "0", *words, env=env)
    assert rotated.status == 0, rotated.err
    outcome = json.loads(rotated.out)
    assert outcome["revoked"] == [said["key_id"]]
    live = {each["id"] for each in json.loads(cli("keys", "list", *words, env=env).out)}
    assert outcome["key_id"] in live
    assert said["key_id"] not in live
    lamp.call("DELETE", f"/api_keys/{outcome['key_id']}")
