"""GitLab: a CI/CD variable of a project or a group, which can be read back unless it was made hidden.

A variable that exists keeps all else that it has: masked, protected, raw, its type. Two scopes of environments are two
variables, and two sinks.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any, ClassVar, Final, Self

from lamplighter.api.secret import Secret
from lamplighter.keys.errors import PolicyError, SinkUnsafe
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

API: Final = "https://gitlab.com/api/v4"
_PATH: Final = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.-]*(/[A-Za-z0-9_.][A-Za-z0-9_.-]*)*")
_NAME: Final = re.compile(r"[A-Za-z0-9_]{1,255}")
_EVERYWHERE: Final = "*"


class GitLabSink(Sink):
    kind: ClassVar[str] = "gitlab"

    def __init__(
        self,
        kind: str,
        path: str,
        name: str,
        *,
        environment_scope: str = _EVERYWHERE,
        hidden: bool = False,
        protected: bool = False,
        api_url: str = API,
    ) -> None:
        self._scope = environment_scope
        self._hidden = hidden
        self._protected = protected
        self._name = name
        self._variables = path_of("groups" if kind == "gitlab-group" else "projects", path, "variables")
        self._variable = self._variables + path_of(name)
        chosen = {
            "api_url": None if api_url == API else api_url,
            "environment_scope": None if environment_scope == _EVERYWHERE else environment_scope,
        }
        self._address = join_address(kind, f"{path}/{name}", chosen)
        self._token: Secret | None = None
        self._store = HttpStore(
            base_url=api_url,
            address=self._address,
            token=self._credentials,
            hints={
                400: "a masked variable takes 8 characters or more, on one line",
                401: "GitLab does not accept GITLAB_TOKEN",
                403: "GITLAB_TOKEN needs the scope api, and the role Maintainer (Owner for a group)",
                404: "it does not exist, or GITLAB_TOKEN may not see it",
            },
        )

    @classmethod
    def parse(cls, address: str, options: Mapping[str, str]) -> Self:
        known = frozenset({"api_url", "environment_scope", "hidden", "protected"})
        kind, place, merged = split_address(address, options, known)
        path, _, name = place.rpartition("/")
        form = "gitlab-group:GROUP/NAME" if kind == "gitlab-group" else "gitlab:GROUP/PROJECT/NAME"
        if not _PATH.fullmatch(path) or not _NAME.fullmatch(name) or (kind == "gitlab" and "/" not in path):
            raise PolicyError(f"{address!r} is no address of a variable: write {form}")
        if not 0 < len(merged.get("environment_scope", _EVERYWHERE)) <= 255:
            raise PolicyError(f"{address!r}: environment_scope is like production, review/* or *")
        api_url = (merged.get("api_url") or _api_of_the_environment()).rstrip("/")
        check_url(api_url, address)
        return cls(
            kind,
            path,
            name,
            environment_scope=merged.get("environment_scope", _EVERYWHERE),
            hidden=_flag(address, merged, "hidden"),
            protected=_flag(address, merged, "protected"),
            api_url=api_url,
        )

    def describe(self) -> str:
        return self._address

    @property
    def options(self) -> Mapping[str, str]:
        flags = {"hidden": self._hidden, "protected": self._protected}
        return {name: "true" for name, on in flags.items() if on}

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(readable=not self._hidden, effect="next workflow run", soak=SOAK["next workflow run"])

    def check(self) -> str:
        self._look()
        return "GitLab answers, and the token may see variables, which needs the right to write them"

    def write(self, value: KeyBuffer, marker: str) -> Receipt:  # noqa: ARG002 - the description is for people there
        before = self._facts()
        if before is None:
            # Asked again after an answer that was lost, it would say that the variable is there already.
            answer = self._store.call("POST", self._variables, body=json_body(self._new(), value))
        else:
            body = json_body({"value": VALUE}, value)
            answer = self._store.call("PUT", self._variable, query=self._filter(), body=body)
        with answer:
            after, date = self._read(answer.fields("key", "masked", "environment_scope")), answer.date
        if (before is None or before.get("masked")) and after.get("masked") is not True:
            raise SinkUnsafe("GitLab does not mask the variable: it will show in logs", address=self._address)
        return Receipt(server_date=date)

    def read_back(self) -> KeyBuffer | None:
        with self._store.call("GET", self._variable, query=self._filter(), allow=(404,)) as answer:
            if answer.status != 404:
                self._read(answer.fields("key"))
                return answer.value("value")
        self._look()
        return None

    def metadata(self) -> Receipt | None:
        known = self._facts()
        return None if known is None else Receipt(server_date=known["date"])

    def delete(self) -> None:
        self._store.call("DELETE", self._variable, query=self._filter(), allow=(404,)).wipe()

    # What GitLab says

    def _filter(self) -> dict[str, str | int]:
        return {"filter[environment_scope]": self._scope}

    def _new(self) -> dict[str, Any]:
        secrecy = {"masked_and_hidden": True} if self._hidden else {"masked": True}
        return {
            "key": self._name,
            "value": VALUE,
            "environment_scope": self._scope,
            "protected": self._protected,
            # A dollar in the value is a dollar.
            "raw": True,
            **secrecy,
        }

    def _facts(self) -> dict[str, Any] | None:
        with self._store.call("GET", self._variable, query=self._filter(), allow=(404,)) as answer:
            if answer.status != 404:
                known = self._read(answer.fields("key", "masked", "hidden", "environment_scope"))
                return {**known, "date": answer.date}
        self._look()
        return None

    def _read(self, known: dict[str, Any]) -> dict[str, Any]:
        if known.get("key") != self._name or known.get("environment_scope", self._scope) != self._scope:
            raise self._store.senseless(200)
        return known

    def _look(self) -> None:
        """Raises SinkNotFound where there is no such project, SinkRefused where its variables are not for us."""
        self._store.call("GET", self._variables, query={"per_page": 1}).wipe()

    def _credentials(self) -> Secret:
        if self._token is None:
            self._token = token_from_environment(("GITLAB_TOKEN",), self._address)
        return self._token


def _flag(address: str, options: Mapping[str, str], name: str) -> bool:
    text = options.get(name, "false")
    if text not in ("true", "false"):
        raise PolicyError(f"{address!r}: {name} is true or false")
    return text == "true"


def _api_of_the_environment() -> str:
    """As in GitLab's own jobs, or as its command has it."""
    if url := os.environ.get("CI_API_V4_URL"):
        return url
    host = os.environ.get("GITLAB_HOST", "")
    if not host:
        return API
    return f"{host if '://' in host else f'https://{host}'}".rstrip("/") + "/api/v4"
