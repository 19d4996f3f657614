"""What is killed during a soak, and how to tell that it is back."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import psutil

from faults import world
from faults.soak_client import Place
from faults.soak_record import Record, Strike
from support.lamp import Lamp, wait_for

BACK_SECONDS = 60.0


@dataclass(frozen=True)
class Process:
    """One process for ever: numbers are given again soon."""

    pid: int
    began: float

    @property
    def lives(self) -> bool:
        with contextlib.suppress(psutil.NoSuchProcess):
            found = psutil.Process(self.pid)
            return found.create_time() == self.began and found.status() != psutil.STATUS_ZOMBIE
        return False


def below(pid: int) -> list[Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return [Process(one.pid, one.create_time()) for one in psutil.Process(pid).children()]
    return []


@dataclass
class Strikes:
    """One of them at a time, but for postmasters of endpoints, which are killed at any time."""

    lamp: Lamp
    record: Record
    places: Sequence[Place]
    relays: set[Process] = field(default_factory=set)
    postmasters: set[int] = field(default_factory=set)
    _one: threading.Lock = field(default_factory=threading.Lock)

    def observe(self) -> None:
        """Remember who there was, so that it can be told later that nobody is left."""
        self.postmasters |= set(self.lamp.postmasters())
        for pid in self.lamp.gateways():
            self.relays |= set(below(pid))

    def __call__(self, kind: Strike, place: Place) -> None:
        strikes: dict[Strike, Callable[[], None]] = {
            "relay": self._relay,
            "gateway": self._gateway,
            "platform": self._platform,
            "catalog": self._catalog,
            "fall": self._fall,
        }
        if kind == "postmaster":
            self._postmaster(place)
            return
        with self._one:
            self.observe()
            strikes[kind]()

    def _postmaster(self, place: Place) -> None:
        pid = self._postmaster_of(place.branch)
        if pid is None:
            self.record.event("postmaster.not_there", endpoint=place.endpoint)
            return
        with self.record.windows.open("postmaster", place.endpoint):
            self._kill(pid, "postmaster", endpoint=place.endpoint)
            wait_for(lambda: pid not in self.lamp.postmasters(), what="the postmaster's end")
            # The kernel may lead to its port until its end is known.
            wait_for(lambda: self._accepts(place), seconds=BACK_SECONDS, what=f"port of {place.endpoint}")

    def _postmaster_of(self, volume: str) -> int | None:
        for pid in self.lamp.postmasters():
            # What ends while it is looked at has no arguments any more.
            with contextlib.suppress(OSError, ValueError):
                argv = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                if Path(os.fsdecode(argv[argv.index(b"-D") + 1])).parent.name == volume:
                    return pid
        return None

    def _relay(self) -> None:
        """The present one: its connections go, and the next ones are another's."""
        (gateway,) = self.lamp.gateways()
        before = below(gateway)
        with self.record.windows.open("relay"):
            for one in before:
                self._kill(one.pid, "relay")
            wait_for(lambda: [one for one in below(gateway) if one not in before and one.lives], what="a new relay")
            # Until it was told of, connections go to the former one's socket.
            self._ports_answer()
        self.record.event("relay.back")

    def _gateway(self) -> None:
        (gateway,) = self.lamp.gateways()
        with self.record.windows.open("gateway"):
            self._kill(gateway, "gateway")
            wait_for(lambda: self._listens(gateway), seconds=BACK_SECONDS, what="a new gateway")
            self._ports_answer()
        self.record.event("gateway.back")

    def _platform(self) -> None:
        with self.record.windows.open("platform"):
            self.record.event("kill", what="platform")
            self.record.count(self.record.kills, "platform")
            self.lamp.kill()
            self.lamp.start()
        self.record.event("platform.back", mended=self.lamp.shown.get("mended"))

    def _catalog(self) -> None:
        pid = self._postmaster_of(world.CATALOG)
        assert pid is not None
        with self.record.windows.open("catalog"):
            self._kill(pid, "catalog")
            wait_for(self._api_answers, seconds=BACK_SECONDS, what="the catalog")
        self.record.event("catalog.back")

    def _fall(self) -> None:
        """The control plane and the gateway at once."""
        (gateway,) = self.lamp.gateways()
        with self.record.windows.open("fall"):
            self.record.event("kill", what="platform and gateway")
            self.record.count(self.record.kills, "platform and gateway")
            assert self.lamp.process is not None
            self.lamp.process.kill()
            os.kill(gateway, signal.SIGKILL)
            self.lamp.wait_killed()
            self.lamp.start()
            self._ports_answer()
        self.record.event("fall.over", mended=self.lamp.shown.get("mended"))

    def _kill(self, pid: int, what: str, **facts: object) -> None:
        self.record.event("kill", what=what, pid=pid, **facts)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            self.record.count(self.record.kills, what)

    def _listens(self, former: int) -> bool:
        """Whether another gateway has taken all ports: that they can be connected to shows no gateway."""
        wanted = {port for place in self.places for _, port in place.addresses}
        with contextlib.suppress(psutil.NoSuchProcess):
            for pid in self.lamp.gateways():
                found = psutil.Process(pid).net_connections("tcp")
                ports = {one.laddr.port for one in found if one.status == psutil.CONN_LISTEN}
                if pid != former and wanted <= ports:
                    return True
        return False

    def _ports_answer(self) -> None:
        for place in self.places:
            wait_for(lambda place=place: self._accepts(place), seconds=BACK_SECONDS, what=f"port of {place.endpoint}")

    def _accepts(self, place: Place) -> bool:
        with contextlib.suppress(OSError):
            for address in place.addresses:
                socket.create_connection(address, timeout=5).close()
            return True
        return False

    def _api_answers(self) -> bool:
        with contextlib.suppress(httpx2.TransportError):
            return self.lamp.request("GET", "/projects").is_success
        return False
