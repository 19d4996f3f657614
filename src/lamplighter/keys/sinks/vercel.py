"""Vercel: an environment variable of a project, made as a sensitive one, which Vercel never shows again.

A variable that exists keeps its targets and its type. Where a project has several of one name, the targets in the
address say which: two variables are two sinks. Deployments that are up keep the old value.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar, Final, Self

from lamplighter.api.secret import Secret
from lamplighter.keys.errors import PolicyError, SinkError
from lamplighter.keys.sinks.base import SOAK, Capabilities, Receipt, Sink
from lamplighter.keys.sinks.http import (
    VALUE,
    HttpStore,
    check_url,
    join_address,
    json_body,
    path_of,
    split_address,
    token_from_environment,
)
from lamplighter.keys.value import KeyBuffer

API: Final = "https://api.vercel.com"
_PROJECT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,255}")
_TARGETS: Final = frozenset({"production", "preview", "development"})
#: Sensitive variables cannot be for development.
_NEW: Final = ("preview", "production")


class VercelSink(Sink):
    """`targets` is empty for: the one variable of this name, whatever it is for. `type` is empty for: as it is."""

    kind: ClassVar[str] = "vercel"

    def __init__(
        self,
        project: str,
        name: str,
        *,
        targets: frozenset[str] = frozenset(),
        team_id: str | None = None,
        type: str = "",  # noqa: A002 - Vercel's word
        api_url: str = API,
    ) -> None:
        self._name = name
        self._targets = targets
        self._type = type
        self._team = {} if team_id is None else {"teamId": team_id}
        self._project = project
        chosen = {
            "api_url": None if api_url == API else api_url,
            "targets": ",".join(sorted(targets)) or None,
            "team_id": team_id,
        }
        self._address = join_address("vercel", f"{project}/{name}", chosen)
        self._token: Secret | None = None
        self._store = HttpStore(
            base_url=api_url,
            address=self._address,
            token=self._credentials,
            request_id="x-vercel-id",
            hints={
                401: "Vercel does not accept VERCEL_TOKEN",
                403: "VERCEL_TOKEN does not reach this project: a project of a team needs the option team_id",
                404: "a project of a team needs the option team_id",
            },
        )

    @classmethod
    def parse(cls, address: str, options: Mapping[str, str]) -> Self:
        known = frozenset({"api_url", "targets", "team_id", "type"})
        _, place, merged = split_address(address, options, known)
        project, _, name = place.partition("/")
        targets = frozenset(filter(None, merged.get("targets", "").split(",")))
        kind = merged.get("type", "")
        if not _PROJECT.fullmatch(project) or not _NAME.fullmatch(name):
            raise PolicyError(f"{address!r} is no address of a variable: write vercel:PROJECT/NAME")
        if not targets <= _TARGETS or ("targets" in merged and not targets):
            raise PolicyError(f"{address!r}: targets are some of production,preview,development")
        if kind not in ("", "sensitive", "encrypted"):
            raise PolicyError(f"{address!r}: type is sensitive or encrypted")
        if "development" in targets and kind != "encrypted":
            raise PolicyError(f"{address!r}: for development Vercel wants type=encrypted")
        api_url = (merged.get("api_url") or API).rstrip("/")
        check_url(api_url, address)
        team_id = merged.get("team_id") or _team_of_the_environment()
        return cls(project, name, targets=targets, team_id=team_id, type=kind, api_url=api_url)

    def describe(self) -> str:
        return self._address

    @property
    def options(self) -> Mapping[str, str]:
        return {"type": self._type} if self._type else {}

    @property
    def capabilities(self) -> Capabilities:
        readable = self._type == "encrypted"
        return Capabilities(readable=readable, effect="next deployment", soak=SOAK["next deployment"])

    def check(self) -> str:
        found, _ = self._found()
        return f"Vercel answers, and the project {'has the variable' if found else 'will get the variable'}"

    def write(self, value: KeyBuffer, marker: str) -> Receipt:  # noqa: ARG002 - the comment is for people there
        found, _ = self._found()
        if found is None:
            return self._create(value)
        fields: dict[str, Any] = {"value": VALUE} | ({"type": self._type} if self._type else {})
        with self._store.call("PATCH", self._path(9, found["id"]), query=self._team, body=json_body(fields, value)) as (
            answer
        ):
            updated_at = _time(answer.fields("updatedAt").get("updatedAt"))
            return Receipt(updated_at=updated_at, server_date=answer.date)

    def read_back(self) -> KeyBuffer | None:
        if self._type != "encrypted":
            return None
        found, _ = self._found()
        if found is None:
            return None
        with self._store.call("GET", self._path(1, found["id"]), query=self._team) as answer:
            return answer.value("value")

    def metadata(self) -> Receipt | None:
        found, receipt = self._found()
        return None if found is None else receipt

    def delete(self) -> None:
        found, _ = self._found()
        if found is not None:
            self._store.call("DELETE", self._path(9, found["id"]), query=self._team, allow=(404,)).wipe()

    # What Vercel says

    def _path(self, version: int, *rest: str) -> str:
        return path_of(f"v{version}", "projects", self._project, "env", *rest)

    def _create(self, value: KeyBuffer) -> Receipt:
        fields = {
            "key": self._name,
            "value": VALUE,
            "type": self._type or "sensitive",
            "target": sorted(self._targets or _NEW),
        }
        # With `upsert` a second time does what the first did.
        query = {"upsert": "true", **self._team}
        with self._store.call("POST", self._path(10), query=query, body=json_body(fields, value), again=True) as answer:
            # What failed may have the value beside the reason.
            failed = bool(answer.fields("failed").get("failed"))
            receipt = Receipt(server_date=answer.date)
        if failed:
            raise SinkError("Vercel did not make the variable", address=self._address, status=answer.status)
        return receipt

    def _found(self) -> tuple[dict[str, Any] | None, Receipt]:
        """The variable that is meant, None when there is none. Raises SinkError when there may be several."""
        with self._store.call("GET", self._path(10), query=self._team) as answer:
            listed = answer.json().get("envs")
            date = answer.date
        if not isinstance(listed, list):
            raise self._store.senseless(200)
        mine = [each for each in listed if isinstance(each, dict) and self._meant(each)]
        if not mine:
            return None, Receipt()
        (found, *others) = mine
        if others:
            raise SinkError(f"the project has {len(mine)} variables of that name", address=self._address,
                            hint="name the targets, such as ?targets=production")  # fmt: skip
        if not isinstance(found.get("id"), str):
            raise self._store.senseless(200)
        self._check_found(found)
        return found, Receipt(updated_at=_time(found.get("updatedAt")), server_date=date)

    def _meant(self, variable: Mapping[str, Any]) -> bool:
        """Those of one branch of git are others' business."""
        if variable.get("key") != self._name or variable.get("gitBranch"):
            return False
        return not self._targets or bool(self._targets & _targets(variable))

    def _check_found(self, variable: Mapping[str, Any]) -> None:
        has = _targets(variable)
        if self._targets and has != self._targets:
            raise SinkError(
                f"the variable is for {', '.join(sorted(has))}", address=self._address, hint="write these as targets"
            )
        if self._type == "encrypted" and variable.get("type") == "sensitive":
            raise SinkError("the variable is sensitive, which cannot be undone", address=self._address,
                            hint="leave type=encrypted out")  # fmt: skip

    def _credentials(self) -> Secret:
        if self._token is None:
            self._token = token_from_environment(("VERCEL_TOKEN",), self._address)
        return self._token


def _targets(variable: Mapping[str, Any]) -> frozenset[str]:
    said = variable.get("target")
    return frozenset([said] if isinstance(said, str) else filter(None, map(str, said or ())))


def _team_of_the_environment() -> str | None:
    """As Vercel's own command: the id of a team there, or of a user, who needs none."""
    owner = os.environ.get("VERCEL_ORG_ID", "")
    return owner if owner.startswith("team_") else None


def _time(said: object) -> datetime | None:
    """Vercel counts milliseconds."""
    return datetime.fromtimestamp(said / 1000, UTC) if isinstance(said, int) and 0 < said < 1 << 48 else None
