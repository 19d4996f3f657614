"""Vercel's API of environment variables, as `@vercel/sdk` describes it."""

from __future__ import annotations

import secrets
from typing import Any, ClassVar

from support.stores.server import Request, Response, Store, route


class VercelStore(Store):
    """`projects` are by name, each a list of variables as Vercel keeps them; `teams` says which are a team's."""

    request_header: ClassVar[str] = "X-Vercel-Id"

    def __init__(self, *, token: str) -> None:
        self.projects: dict[str, list[dict[str, Any]]] = {}
        self.teams: dict[str, str] = {}
        super().__init__(token=token)

    def refused(self, status: int, request: Request) -> Response:
        code = {401: "forbidden", 403: "forbidden", 404: "not_found"}.get(status, "bad_request")
        # Vercel answers a token that it does not know with 403.
        return Response(
            403 if status == 401 else status, {"error": {"code": code, "message": "no", "invalidToken": True}}
        )

    def _project(self, request: Request, project: str) -> list[dict[str, Any]] | None:
        if self.teams.get(project) != request.query.get("teamId"):
            return None
        return self.projects.get(project)

    def _now(self) -> int:
        return int(self.tick().timestamp() * 1000)

    def add(self, project: str, key: str, value: str, **more: Any) -> dict[str, Any]:
        now = self._now()
        made = {
            "id": secrets.token_hex(8),
            "key": key,
            "value": value,
            "type": "sensitive",
            "target": ["production", "preview"],
            "createdAt": now,
            "updatedAt": now,
            **more,
        }
        self.projects[project].append(made)
        return made

    def _shown(self, variable: dict[str, Any], *, decrypted: bool = False) -> dict[str, Any]:
        shown = dict(variable)
        if variable["type"] == "sensitive":
            shown["value"] = ""
        elif not decrypted and variable["type"] != "plain":
            shown["value"] = "eyJ2IjoidjIiLCJlcGsiOnt9fQ=="
        return shown

    @route("GET", "/v10/projects/{project}/env")
    def list_env(self, request: Request, project: str) -> Response:
        found = self._project(request, project)
        if found is None:
            return self.refused(404, request)
        return Response(200, {"envs": [self._shown(each) for each in found]})

    @route("GET", "/v1/projects/{project}/env/{id}")
    def get_env(self, request: Request, project: str, id: str) -> Response:  # noqa: A002
        for each in self._project(request, project) or []:
            if each["id"] == id:
                return Response(200, {**self._shown(each, decrypted=True), "decrypted": each["type"] != "sensitive"})
        return self.refused(404, request)

    @route("POST", "/v10/projects/{project}/env")
    def create_env(self, request: Request, project: str) -> Response:
        found = self._project(request, project)
        if found is None:
            return self.refused(404, request)
        sent = request.json()
        if sent["type"] == "sensitive" and "development" in sent["target"]:
            return Response(400, {"error": {"code": "bad_request", "message": "sensitive is not for development"}})
        for each in found:
            same = (
                each["key"] == sent["key"] and not each.get("gitBranch") and set(each["target"]) & set(sent["target"])
            )
            if same and request.query.get("upsert") == "true" and set(each["target"]) == set(sent["target"]):
                each |= {"value": sent["value"], "type": sent["type"], "updatedAt": self._now()}
                return Response(201, {"created": self._shown(each), "failed": []})
            if same:
                error = {"code": "ENV_CONFLICT", "message": "exists", "key": sent["key"], "value": sent["value"]}
                return Response(201, {"created": [], "failed": [{"error": error}]})
        made = self.add(project, sent["key"], sent["value"], type=sent["type"], target=sent["target"])
        # Vercel shows what it was sent.
        return Response(201, {"created": {**made, "value": sent["value"]}, "failed": []})

    @route("PATCH", "/v9/projects/{project}/env/{id}")
    def edit_env(self, request: Request, project: str, id: str) -> Response:  # noqa: A002
        for each in self._project(request, project) or []:
            if each["id"] == id:
                sent = request.json()
                each |= {name: sent[name] for name in ("value", "type", "target", "comment") if name in sent}
                each["updatedAt"] = self._now()
                return Response(200, {**each, "value": sent.get("value", "")})
        return self.refused(404, request)

    @route("DELETE", "/v9/projects/{project}/env/{id}")
    def delete_env(self, request: Request, project: str, id: str) -> Response:  # noqa: A002
        found = self._project(request, project) or []
        for each in found:
            if each["id"] == id:
                found.remove(each)
                return Response(200, self._shown(each))
        return self.refused(404, request)
