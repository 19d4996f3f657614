"""How a platform is set up: by `lamp up`'s options, else by the environment (`LAMP_...`), else as here."""

from __future__ import annotations

import hashlib
import os
from ipaddress import ip_address
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


def default_data_dir() -> Path:
    """Where a platform lives: for root outside of its home, which the user that Postgres runs as could not enter."""
    if os.geteuid() == 0:
        return Path("/var/lib/lamplighter")
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share") / "lamplighter"


class Settings(BaseSettings):
    """One platform. Sizes are in bytes."""

    model_config = SettingsConfigDict(env_prefix="LAMP_", env_ignore_empty=True, extra="ignore", frozen=True)

    data_dir: Path = Field(default_factory=default_data_dir)
    #: Address of the API.
    host: str = "127.0.0.1"
    #: 0 takes any free port.
    port: int = Field(default=7432, ge=0, le=65535)
    #: First and last port that endpoints may get: below those that the kernel gives to outgoing connections.
    endpoint_ports: tuple[int, int] = (20000, 29999)
    #: Ports of computes and poolers, by which the gateway reaches them.
    compute_ports: tuple[int, int] = (30000, 32767)
    #: Address that endpoints listen on; 0.0.0.0 for a network.
    listen: str = "127.0.0.1"
    #: Endpoints are `<id>.<domain>` on one port instead of an address and a port each.
    domain: str | None = None
    domain_port: int = Field(default=5432, ge=1, le=65535)
    #: Port of the proxy for clients that have Neon's address built in; 0 takes any free one, None opens none.
    console_proxy: int | None = Field(default=None, ge=0, le=65535)
    #: The operator's own certificate and key, PEM; None makes an authority.
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    #: Lead connections straight to awake computes by nftables.
    redirect: bool = False
    #: How many clients may be connected to one endpoint by the gateway.
    endpoint_connections: int = Field(default=10_000, ge=1)
    #: How many endpoints may be active at once.
    active_endpoints: int | None = Field(default=None, ge=1)
    #: Seconds without a client after which an endpoint with `suspend_timeout_seconds` 0 is suspended.
    suspend_after: int = Field(default=300, ge=1)
    #: A catalog in a Postgres of the operator's; None runs one.
    catalog_url: str | None = None
    postgres_bin: Path | None = None
    cache_dir: Path | None = None
    storage_driver: Literal["btrfs", "reflink", "overlay", "copy"] | None = None
    storage_reserve: int | None = Field(default=None, ge=0)
    rate_limits: Literal["off", "neon"] = "off"
    #: Answer 400 where Neon demands an org_id that could be inferred.
    strict_org_id: bool = False
    #: Answer 404 instead of 204 to a DELETE of what is not there.
    missing_is_404: bool = False
    log_level: Literal["debug", "info", "warning", "error"] = "warning"

    @field_validator("data_dir")
    @classmethod
    def _resolved(cls, path: Path) -> Path:
        # One spelling of each directory: mounts and the records of computes name it too.
        return path.expanduser().resolve()

    @field_validator("domain")
    @classmethod
    def _plain(cls, domain: str | None) -> str | None:
        from lamplighter.compute.tls import ascii_domain  # noqa: PLC0415 - cryptography, for those who give one

        return None if domain is None else ascii_domain(domain)

    @field_validator("listen")
    @classmethod
    def _address(cls, address: str) -> str:
        return str(ip_address(address))

    @model_validator(mode="after")
    def _pair(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("give --tls-certificate and --tls-key both, or neither")
        first, second = sorted((self.endpoint_ports, self.compute_ports))
        if first[1] >= second[0]:
            raise ValueError("the ranges of --endpoint-ports and --compute-ports must not overlap")
        if self.domain and any(low <= self.domain_port <= high for low, high in (first, second)):
            raise ValueError("--domain-port must be in neither --endpoint-ports nor --compute-ports")
        return self

    @field_validator("endpoint_ports", "compute_ports")
    @classmethod
    def _ordered(cls, ports: tuple[int, int]) -> tuple[int, int]:
        if not 1024 <= ports[0] <= ports[1] <= 65535:
            raise ValueError("give the first and the last port, both from 1024 to 65535")
        return ports


def run_dir_of(data_dir: Path) -> Path:
    """The directory of sockets and process records of the platform in `data_dir`.

    Short, since a socket's whole path may have 107 bytes; below a directory that is empty after the host has restarted,
    where there is one.
    """
    name = hashlib.sha256(os.fsencode(data_dir.resolve())).hexdigest()[:8]
    if os.geteuid() == 0:
        return Path("/run/lamplighter") / name
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and len(os.fsencode(runtime)) < 40 and os.access(runtime, os.W_OK):
        return Path(runtime) / "lamplighter" / name
    return Path(f"/tmp/lamplighter-{os.geteuid()}") / name  # noqa: S108 - made with mode 0700, and checked to be ours
