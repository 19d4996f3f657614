"""`lamp up --console-proxy`: who has Neon's address built in reaches this platform, and nothing of it stays."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from threading import Timer

import pytest
import requests

from lamplighter.compute.tls import ensure_tls
from support.lamp import Lamp, temporary_lamp

URL = "https://console.neon.tech/api/v2"


@pytest.fixture(scope="module")
def lamp() -> Iterator[Lamp]:
    """A platform whose API listens everywhere: its proxy does not."""
    with temporary_lamp(options=("--console-proxy", "0", "--host", "0.0.0.0")) as platform:
        yield platform


@pytest.fixture
def client(lamp: Lamp) -> Iterator[requests.Session]:
    with client_of(lamp) as made:
        yield made


def client_of(lamp: Lamp) -> requests.Session:
    made = requests.Session()
    # No settings of whoever runs the tests.
    made.trust_env = False
    made.proxies["https"] = lamp.shown["console_proxy"]["url"]
    made.verify = lamp.shown["console_proxy"]["ca_file"]
    made.headers["authorization"] = f"Bearer {lamp.key}"
    return made


def port_of(lamp: Lamp) -> int:
    return int(lamp.shown["console_proxy"]["url"].rpartition(":")[2])


def test_the_api_answers_by_the_built_in_address(lamp: Lamp, client: requests.Session):
    """Requests of every kind, on one connection and on others."""
    known = client.get(f"{URL}/projects", timeout=30).json()["projects"]
    assert [one["id"] for one in known] == [lamp.shown["project_id"]]
    made = client.post(f"{URL}/api_keys", json={"key_name": "by the proxy"}, timeout=30).json()
    answer = requests.get(
        f"{URL}/users/me",
        headers={"authorization": f"Bearer {made['key']}"},
        proxies=client.proxies,
        verify=client.verify,
        timeout=30,
    )
    assert answer.json()["login"] == lamp.call("GET", "/users/me")["login"]
    assert client.delete(f"{URL}/api_keys/{made['id']}", timeout=30).json()["revoked"] is True
    assert client.get(f"{URL}/users/me", headers={"authorization": "Bearer x"}, timeout=30).status_code == 401


def test_another_host_is_refused(client: requests.Session):
    """In words that the client shows; nobody is asked for that host."""
    with pytest.raises(requests.exceptions.ProxyError, match=r"403 .*console\.neon\.tech:443 only"):
        client.get("https://api.example.org/", timeout=30)


def test_what_asks_for_no_tunnel_is_refused(lamp: Lamp):
    with requests.Session() as plain:
        plain.trust_env = False
        plain.proxies["http"] = lamp.shown["console_proxy"]["url"]
        answer = plain.get("http://console.neon.tech/api/v2/projects", timeout=30)
    assert answer.status_code == 405
    assert "CONNECT console.neon.tech:443" in answer.text


def test_its_certificate_is_by_the_authority_that_lamp_ca_tells(lamp: Lamp, client: requests.Session):
    """Who was not told to trust it does not talk to us by mistake."""
    assert Path(client.verify) == lamp.data_dir / "tls" / "ca.crt"
    with requests.Session() as stranger:
        stranger.trust_env = False
        stranger.proxies = client.proxies
        with pytest.raises(requests.exceptions.SSLError, match="certificate verify failed"):
            stranger.get(f"{URL}/users/me", timeout=30)


def test_it_listens_on_loopback_alone(lamp: Lamp):
    listening = Path("/proc/net/tcp").read_text().splitlines()[1:]
    places = [line.split()[1].split(":") for line in listening if line.split()[3] == "0A"]
    assert [address for address, port in places if int(port, 16) == port_of(lamp)] == ["0100007F"]


def test_it_ends_with_the_platform(tmp_path: Path):
    """Whoever is connected at that moment, in whatever state; and beside a certificate of the operator's."""
    theirs = ensure_tls(tmp_path, (os.getuid(), os.getgid()))
    own = ("--tls-certificate", str(theirs.certificate), "--tls-key", str(theirs.key))
    with temporary_lamp(options=("--console-proxy", "0", *own)) as lamp, ExitStack() as open_until_then:
        port = port_of(lamp)
        client = open_until_then.enter_context(client_of(lamp))
        assert client.get(f"{URL}/projects", timeout=30).status_code == 200
        for said in (b"", b"CONNECT console", b"CONNECT console.neon.tech:443 HTTP/1.1\r\n\r\n"):
            one = open_until_then.enter_context(socket.create_connection(("127.0.0.1", port)))
            one.sendall(said)
        assert one.recv(100).startswith(b"HTTP/1.1 200 ")
        assert lamp.stop() == 0
        assert "Traceback" not in lamp.log.read_text()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port)).close()


def test_what_lamp_up_shows_is_what_to_export():
    """And that it needs another port where its own is taken."""
    with temporary_lamp(start=False) as other, socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = [one for one in other.command() if one not in ("--output", "json")]
        env = {**os.environ, "XDG_CONFIG_HOME": str(other.config_home), "LAMP_CONSOLE_PROXY": str(port)}
        refused = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
        assert refused.returncode == 1
        assert f"cannot listen on 127.0.0.1:{port}" in refused.stderr
        assert "another port with --console-proxy" in refused.stderr
        taken.close()
        with subprocess.Popen(
            command, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as started:
            assert started.stdout is not None
            ends = Timer(60, started.kill)
            ends.start()
            try:
                shown = next(line for line in started.stdout if line.startswith("Console "))
            finally:
                started.send_signal(signal.SIGINT)
                started.wait(60)
                ends.cancel()
        exported = dict(word.split("=", 1) for word in shlex.split(shown)[1:])
        assert exported == {
            "HTTPS_PROXY": f"http://127.0.0.1:{port}",
            "REQUESTS_CA_BUNDLE": str(other.data_dir / "tls" / "ca.crt"),
        }
