"""GitLab's API of CI/CD variables of projects and groups."""

from __future__ import annotations

import re
from typing import Any, ClassVar

from support.stores.server import Request, Response, Store, route

#: What GitLab can mask when it does not expand the value.
_MASKABLE = re.compile(r"\S{8,}")


class GitLabStore(Store):
    """`holders` are `projects/group/name` and `groups/name`, each a list of variables as GitLab keeps them."""

    base_path: ClassVar[str] = "/api/v4"

    def __init__(self, *, token: str) -> None:
        self.holders: dict[str, list[dict[str, Any]]] = {}
        super().__init__(token=token)

    def refused(self, status: int, request: Request) -> Response:
        message = {401: "401 Unauthorized", 404: "404 Not Found"}.get(status, "no")
        return Response(status, {"message": message})

    def add(self, holder: str, key: str, value: str, **more: Any) -> dict[str, Any]:
        made = {
            "variable_type": "env_var",
            "key": key,
            "value": value,
            "protected": False,
            "masked": False,
            "hidden": False,
            "raw": False,
            "environment_scope": "*",
            "description": None,
            **more,
        }
        self.holders[holder].append(made)
        return made

    def find(self, holder: str, key: str, scope: str = "*") -> dict[str, Any] | None:
        found = [each for each in self.holders[holder] if (each["key"], each["environment_scope"]) == (key, scope)]
        return found[0] if found else None

    def _shown(self, variable: dict[str, Any]) -> dict[str, Any]:
        return {**variable, "value": None if variable["hidden"] else variable["value"]}

    def _valid(self, variable: dict[str, Any]) -> Response | None:
        if variable["masked"] and not _MASKABLE.fullmatch(variable["value"]):
            return Response(400, {"message": {"value": [f"is invalid: {variable['value']}"]}})
        return None

    @route("GET", "/{kind}/{holder}/variables")
    def list_variables(self, request: Request, kind: str, holder: str) -> Response:
        found = self.holders.get(f"{kind}/{holder}")
        if found is None:
            return Response(404, {"message": "404 Project Not Found"})
        return Response(200, [self._shown(each) for each in found])

    @route("POST", "/{kind}/{holder}/variables")
    def create_variable(self, request: Request, kind: str, holder: str) -> Response:
        place = f"{kind}/{holder}"
        if place not in self.holders:
            return Response(404, {"message": "404 Project Not Found"})
        sent = request.json()
        if self.find(place, sent["key"], sent.get("environment_scope", "*")):
            return Response(400, {"message": {"key": [f"({sent['key']}) has already been taken"]}})
        more = {name: sent[name] for name in ("protected", "masked", "raw", "environment_scope") if name in sent}
        if sent.get("masked_and_hidden"):
            more |= {"masked": True, "hidden": True}
        made = self.add(place, sent["key"], sent["value"], **more)
        if (invalid := self._valid(made)) is not None:
            self.holders[place].remove(made)
            return invalid
        self.tick()
        return Response(201, self._shown(made))

    def _one(self, request: Request, kind: str, holder: str, key: str) -> dict[str, Any] | None:
        return self.find(f"{kind}/{holder}", key, request.query.get("filter[environment_scope]", "*"))

    @route("GET", "/{kind}/{holder}/variables/{key}")
    def get_variable(self, request: Request, kind: str, holder: str, key: str) -> Response:
        if f"{kind}/{holder}" not in self.holders:
            return Response(404, {"message": "404 Project Not Found"})
        found = self._one(request, kind, holder, key)
        return (
            Response(404, {"message": "404 Variable Not Found"}) if found is None else Response(200, self._shown(found))
        )

    @route("PUT", "/{kind}/{holder}/variables/{key}")
    def update_variable(self, request: Request, kind: str, holder: str, key: str) -> Response:
        found = self._one(request, kind, holder, key)
        if found is None:
            return Response(404, {"message": "404 Variable Not Found"})
        sent = request.json()
        changed = {
            name: sent[name] for name in ("value", "protected", "masked", "raw", "environment_scope") if name in sent
        }
        if (invalid := self._valid({**found, **changed})) is not None:
            return invalid
        found |= changed
        self.tick()
        return Response(200, self._shown(found))

    @route("DELETE", "/{kind}/{holder}/variables/{key}")
    def delete_variable(self, request: Request, kind: str, holder: str, key: str) -> Response:
        found = self._one(request, kind, holder, key)
        if found is None:
            return Response(404, {"message": "404 Variable Not Found"})
        self.holders[f"{kind}/{holder}"].remove(found)
        return Response(204)
