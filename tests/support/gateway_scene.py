"""Two endpoints of one project behind a gateway, each of which says who it is."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.gateway_clients import Address
from support.lamp import Lamp, uri_of

#: Who answered, and whether its session is encrypted: `left,true`.
WHO = "select name || ',' || (select ssl from pg_stat_ssl where pid = pg_backend_pid()) from place"
#: The same, for whom a pooler of the same host passes on: it comes by the Unix socket.
WHO_BY_POOLER = f"{WHO}, (select inet_server_addr() is null as socket) as server where socket"


@dataclass(frozen=True)
class Endpoint:
    """`uri` is what the API told when it was made; `branch` is its branch's name."""

    id: str
    branch: str
    uri: str


@dataclass(frozen=True)
class Scene:
    """`authority` is what `lamp ca --path` says."""

    lamp: Lamp
    project_id: str
    left: Endpoint
    right: Endpoint
    authority: Path

    def address(self, endpoint: Endpoint, sslmode: str = "require", *, pooled: bool = False, **given: Any) -> Address:
        uri = self.uri(endpoint, pooled=pooled) if pooled else endpoint.uri
        return Address.of(uri, sslmode=sslmode, authority=self.authority, **given)

    def uri(self, endpoint: Endpoint, *, pooled: bool) -> str:
        """What the API tells when it is asked for a connection string."""
        wanted = {"endpoint_id": endpoint.id, "database_name": "neondb", "role_name": "neondb_owner", "pooled": pooled}
        said = self.lamp.call("GET", f"/projects/{self.project_id}/connection_uri", **wanted)
        return str(said["uri"])

    def sleep(self, *endpoints: Endpoint) -> None:
        for endpoint in endpoints:
            path = f"/projects/{self.project_id}/endpoints/{endpoint.id}"
            self.lamp.call("POST", f"{path}/suspend")
            self.lamp.settle(self.project_id)
            assert self.lamp.call("GET", path)["endpoint"]["current_state"] == "idle"

    @contextmanager
    def woken(self, *endpoints: Endpoint) -> Iterator[None]:
        """What is done within wakes these, which sleep before, by one operation each, and nobody else."""
        self.sleep(*endpoints)
        before = {one["id"] for one in self.lamp.settle(self.project_id)}
        yield
        done = [one for one in self.lamp.settle(self.project_id) if one["id"] not in before]
        found = sorted((one["endpoint_id"], one["action"], one["status"]) for one in done)
        wanted = sorted((one.id, "start_compute", "finished") for one in endpoints)
        assert found == wanted, f"{found} instead of {wanted}"


def make_scene(lamp: Lamp) -> Scene:
    """In the project that the platform has made: its default branch is the left, and a new one is the right."""
    project = lamp.project(name="two doors")
    project_id = project["project"]["id"]
    made = lamp.branch(project_id, "right")
    left = Endpoint(project["endpoints"][0]["id"], project["branch"]["name"], uri_of(project))
    right = Endpoint(made["endpoints"][0]["id"], "right", uri_of(made))
    told = [sys.executable, "-m", "lamplighter", "ca", "--path", "--data-dir", str(lamp.data_dir)]
    authority = Path(subprocess.run(told, check=True, capture_output=True, text=True).stdout.strip())
    return Scene(lamp, project_id, left, right, authority)
