"""Six stores at once, and `lamp keys` as a process among them: what a team's rotation has around it."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.lamp import Lamp
from support.stores.aws import client, moto
from support.stores.aws import environment as aws_environment
from support.stores.cloudflare import CloudflareStore
from support.stores.github import GitHubStore
from support.stores.keychain import secret_service
from support.stores.vault import ROOT, OpenBao, openbao

ACCOUNT = "0123456789abcdef0123456789abcdef"
REPOSITORY = "octo/shop"
PLACE = f"repos/{REPOSITORY}/actions"


@dataclass(frozen=True)
class Stores:
    """`env` is what a user sets to reach them. The keychain's files are below `ring`."""

    bao: OpenBao
    github: GitHubStore
    cloudflare: CloudflareStore
    aws: str
    bus: str
    ring: Path

    @property
    def env(self) -> dict[str, str]:
        return {
            "VAULT_ADDR": self.bao.url,
            "VAULT_TOKEN": ROOT,
            "GH_TOKEN": self.github.token,
            "GITHUB_API_URL": self.github.url,
            "CLOUDFLARE_API_TOKEN": self.cloudflare.token,
            "CLOUDFLARE_API_BASE_URL": self.cloudflare.url,
            "DBUS_SESSION_BUS_ADDRESS": self.bus,
            **aws_environment(self.aws),
        }

    @property
    def store_id(self) -> str:
        return next(iter(self.cloudflare.stores))

    @property
    def urls(self) -> dict[str, str]:
        """Those that are reached over TCP, by name."""
        return {
            "openbao": self.bao.url,
            "github": self.github.url,
            "cloudflare": self.cloudflare.url,
            "aws": self.aws,
        }


@contextmanager
def all_stores(*, keychain: bool = True) -> Iterator[Stores]:
    """Up, empty, and gone at the end; the keychain needs Debian's programs."""
    with contextlib.ExitStack() as stack:
        # Not pytest's: the address of a socket has 107 characters at most.
        ring = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lamp-ring-")))
        github = GitHubStore(token=f"ghp_{secrets.token_hex(18)}")
        stack.callback(github.close)
        github.add(PLACE)
        cloudflare = CloudflareStore(token=secrets.token_hex(20), account=ACCOUNT)
        stack.callback(cloudflare.close)
        cloudflare.add_store("default_secrets_store")
        bus = stack.enter_context(secret_service(ring)) if keychain else ""
        aws, bao = stack.enter_context(moto()), stack.enter_context(openbao())
        yield Stores(bao=bao, github=github, cloudflare=cloudflare, aws=aws, bus=bus, ring=ring)


@dataclass(frozen=True)
class Ran:
    status: int
    out: str
    err: str

    @property
    def error(self) -> dict[str, Any]:
        """What a command that failed says to a program."""
        found: dict[str, Any] = json.loads(self.err.splitlines()[-1])["error"]
        return found


@dataclass
class Team:
    """Somebody with a home, a minter key in a file, and places for one key: `lamp keys` runs as they would run it."""

    lamp: Lamp
    stores: Stores
    root: Path
    name: str = field(default_factory=lambda: f"team{secrets.token_hex(4)}")
    #: What the minter reaches Neon by; the platform itself, unless something was put between.
    url: str = ""

    def __post_init__(self) -> None:
        self.url = self.url or self.lamp.url
        for each in ("home", "config", "state", "cache", "data", "tmp", "work"):
            (self.root / each).mkdir(mode=0o700)
        self.minter = self.root / "home" / "minter"
        self.minter.touch(mode=0o600)
        self.minter.write_text(self.lamp.key)
        self.dotenv = self.root / "work" / ".env"
        self.place = self.name.upper()

    @property
    def env(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.root / "home"),
            "XDG_CONFIG_HOME": str(self.root / "config"),
            "XDG_STATE_HOME": str(self.root / "state"),
            "XDG_CACHE_HOME": str(self.root / "cache"),
            "XDG_DATA_HOME": str(self.root / "data"),
            "TMPDIR": str(self.root / "tmp"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "NEON_API_HOST": self.url,
            "LAMP_KEYS_MINTER": f"file:{self.minter}",
            **self.stores.env,
        }

    @property
    def sinks(self) -> dict[str, str]:
        return {
            "dotenv": f"dotenv:{self.dotenv}#NEON_API_KEY",
            "openbao": f"vault:secret/{self.name}/neon#api_key",
            "keychain": f"keychain:{self.name}/NEON_API_KEY",
            "aws": f"aws-secret:{self.name}/neon",
            "github": f"github:{REPOSITORY}/{self.place}",
            "cloudflare": f"cloudflare-store:{ACCOUNT}/default_secrets_store/{self.place}",
        }

    def to(self, *names: str) -> list[str]:
        """`--to` for these, or for all."""
        return [word for name in names or tuple(self.sinks) for word in ("--to", self.sinks[name])]

    def keys(
        self,
        *words: str,
        status: int | None = 0,
        under: list[str] | None = None,
        env: Mapping[str, str] | None = None,
        before: Callable[[], None] | None = None,
    ) -> Ran:
        """Run `lamp keys`. `under` is a command that runs it; `before` is called in the child, as by `Popen`."""
        done = subprocess.run(
            [*(under or []), sys.executable, "-m", "lamplighter", "keys", *words],
            env={**self.env, **(env or {})},
            cwd=self.root / "work",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
            preexec_fn=before,
        )
        assert "Traceback" not in done.stderr, done.stderr
        if status is not None:
            assert done.returncode == status, done.stdout + done.stderr
        return Ran(done.returncode, done.stdout, done.stderr)

    def json(self, *words: str, **options: Any) -> Any:
        return json.loads(self.keys(*words, "--output", "json", **options).out)

    @property
    def state_dir(self) -> Path:
        return self.root / "state" / "lamplighter" / "keys"

    # What is where

    def held(self, name: str) -> bytes | None:
        """The value in a store, read past the code that is tested."""
        return getattr(self, f"_in_{name}")()  # type: ignore[no-any-return]

    def _in_dotenv(self) -> bytes | None:
        if not self.dotenv.exists():
            return None
        return self.dotenv.read_bytes().strip().removeprefix(b"NEON_API_KEY=")

    def _in_openbao(self) -> bytes | None:
        found = self.stores.bao.fields(f"{self.name}/neon").get("api_key")
        return None if found is None else found.encode()

    def _in_github(self) -> bytes | None:
        found = self.stores.github.places[PLACE].get(self.place)
        return None if found is None else found.value

    def _in_cloudflare(self) -> bytes | None:
        found = self.stores.cloudflare.named(self.stores.store_id, self.place)
        return None if found is None else found["value"].encode()

    def _in_aws(self) -> bytes | None:
        with contextlib.closing(client(self.stores.aws, "secretsmanager")) as raw:
            try:
                text: str = raw.get_secret_value(SecretId=f"{self.name}/neon", VersionStage="AWSCURRENT")[
                    "SecretString"
                ]
            except raw.exceptions.ResourceNotFoundException:
                return None
            return text.encode()

    def _in_keychain(self) -> bytes | None:
        done = subprocess.run(
            ["secret-tool", "lookup", "service", self.name, "username", "NEON_API_KEY"],
            env={**os.environ, "DBUS_SESSION_BUS_ADDRESS": self.stores.bus},
            capture_output=True,
            check=False,
            timeout=30,
        )
        return done.stdout if done.returncode == 0 else None

    # What Neon says

    def status(self, value: bytes | None, path: str = "/auth") -> int:
        """What the platform answers to a request with this key."""
        return self.lamp.request("GET", path, key=(value or b"none").decode()).status_code

    def clear(self) -> None:
        """Take away what is left of its keys: the platform is not ours alone."""
        for key in self.live():
            self.lamp.call("DELETE", f"/api_keys/{key}")

    def live(self, org_id: str | None = None) -> dict[int, str]:
        """The keys of this team that are live."""
        path = f"/organizations/{org_id}/api_keys" if org_id else "/api_keys"
        found = {each["id"]: each["name"] for each in self.lamp.call("GET", path)}
        return {key: name for key, name in found.items() if self.name in name}
