"""What the gateway is told and asked, led to the machine below and the control plane."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import psycopg
import structlog

from lamplighter.compute.errors import NotRunning
from lamplighter.compute.supervisor import Supervisor
from lamplighter.control.app import Control
from lamplighter.gateway.ports import Backend, Report, Traffic
from lamplighter.platform.metrics import Numbers
from lamplighter.platform.plane import LISTEN, LocalPlane
from lamplighter.platform.redirect_plan import Counted

log = structlog.get_logger(__name__)


class GatewaySide:
    """Implements `gateway.Below`. `control` is set once there is one; before, nobody can be woken."""

    def __init__(self, *, plane: LocalPlane, supervisor: Supervisor, numbers: Numbers) -> None:
        self._plane = plane
        self._numbers = numbers
        self._supervisor = supervisor
        self.control: Control | None = None

    def backends(self, endpoint_id: str) -> tuple[Backend | None, Backend | None]:
        """The compute that runs, and its pooler."""
        status = self._supervisor.status(endpoint_id)
        if status.state != "running" or status.port is None:
            return None, None
        tls = self._plane.tls(self._supervisor.spec(endpoint_id).major)
        return Backend(LISTEN, status.port, tls), self._plane.pooler(endpoint_id)

    def log_of(self, endpoint_id: str, *, pooler: bool = False) -> Path:
        return self._plane.pooler_log(endpoint_id) if pooler else self._supervisor.log_file(endpoint_id)

    async def verifier(self, endpoint_id: str, role: str) -> str | None:
        return await self._plane.verifier(endpoint_id, role)

    async def wake(self, endpoint_id: str) -> bool:
        assert self.control is not None
        return await self.control.endpoints.wake(endpoint_id)

    async def pool(self, endpoint_id: str) -> None:
        try:
            await self._plane.start_pooler(endpoint_id)
        except (NotRunning, psycopg.Error) as error:
            # The postmaster has just ended: the gateway is told so when that is known, and asks for a wake.
            log.info("endpoint.no_pooler", endpoint_id=endpoint_id, error=str(error))

    @property
    def pools(self) -> bool:
        return self._plane.pools

    def woken(self, endpoint_id: str, seconds: float, *, ok: bool) -> None:
        log.info("endpoint.woken", endpoint_id=endpoint_id, milliseconds=round(seconds * 1000), ok=ok)
        self._numbers.woke(endpoint_id, seconds, ok=ok)

    def led_past(self, endpoint_id: str, counted: Counted) -> None:
        known = self._numbers.of(endpoint_id).connections
        traffic = Traffic(endpoint_id, known, counted.accepted, counted.bytes_in, counted.bytes_out)
        self._numbers.traffic(traffic)
        self._note(traffic)

    async def count_connected(self, endpoint_ids: Iterable[str]) -> None:
        wanted = tuple(endpoint_ids)
        found = await self._plane.connected()
        self._numbers.connected({one: found.get(one, 0) for one in wanted})

    def gone(self, endpoint_id: str) -> None:
        self._numbers.forget(endpoint_id)

    def lost(self) -> None:
        self._numbers.gateway_lost()

    def reported(self, report: Report) -> None:
        self._numbers.report(report)
        for one in report.traffic:
            self._note(one)

    def _note(self, traffic: Traffic) -> None:
        if self.control is not None:
            self.control.idle.note(
                traffic.endpoint_id,
                accepted=traffic.accepted,
                bytes_in=traffic.bytes_in,
                bytes_out=traffic.bytes_out,
            )
