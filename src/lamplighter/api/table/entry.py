"""What one row of the operation table says, and the helpers that rows are written with.

A row's path names its path parameters. Their types are the same wherever they occur and stand here once, in
`PATH_TYPES`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import Field

from lamplighter.api.models.auth import NeonAuthOauthProviderId, NeonAuthSupportedAuthProvider
from lamplighter.api.models.base import Id, Int64, Model, Uuid

KeyKind = Literal["personal", "organization", "project"]
Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]

#: A key of a person, of an organization, or of an organization but scoped to one project.
EVERY_KEY: frozenset[KeyKind] = frozenset({"personal", "organization", "project"})
#: What reaches beyond one project.
UNSCOPED: frozenset[KeyKind] = frozenset({"personal", "organization"})
PERSONAL: frozenset[KeyKind] = frozenset({"personal"})

JSON = "application/json"

PROJECT = "/projects/{project_id}"
BRANCH = PROJECT + "/branches/{branch_id}"
ORGANIZATION = "/organizations/{org_id}"

_BucketName = Annotated[str, Field(min_length=1, max_length=255)]
_ObjectKey = Annotated[str, Field(min_length=1, max_length=1024)]

PATH_TYPES: Mapping[str, Any] = MappingProxyType(
    {
        "auth_provider": NeonAuthSupportedAuthProvider,
        "auth_user_id": str,
        "branch_id": Id,
        "bucket_name": _BucketName,
        "database_name": str,
        "endpoint_id": Id,
        "jwks_id": str,
        "key_id": Int64,
        "member_id": Uuid,
        "oauth_provider_id": NeonAuthOauthProviderId,
        "object_key": _ObjectKey,
        "operation_id": Uuid,
        "org_id": Id,
        "permission_id": str,
        "project_id": Id,
        "region_id": str,
        "request_id": Id,
        "role_name": str,
        "slug": Annotated[str, Field(pattern=r"^[a-z0-9]{1,20}$")],
        "snapshot_id": Id,
        "source_org_id": Id,
        "token_id": str,
        "vpc_endpoint_id": str,
    }
)


@dataclass(frozen=True, slots=True, eq=False)
class Parameter:
    """One parameter in the path or the query. `type` is an annotation that pydantic understands, limits included.

    Read its text with `TypeAdapter(type).validate_strings(text, strict=True)`: a list takes a list of texts.
    """

    name: str
    where: Literal["path", "query"]
    type: Any
    required: bool = True
    default: Any = None


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Operation:
    """One operation of the contract.

    `status` is that of a success; `statuses` lists every success (a DELETE of what is gone already may answer 204, with
    no body). `body` and `reply` are annotations for pydantic, None where there is nothing or where it is no JSON; the
    media type is then in `reply_media`. `callers` are the kinds of key that may call it. `safe` operations change
    nothing. `served` tells whether Lamplighter's own server has it. `refusals` are error answers, by status, with a
    body of their own.
    """

    id: str
    method: Method
    path: str
    tag: str
    parameters: tuple[Parameter, ...] = ()
    body: type[Model] | Any | None = None
    body_required: bool = False
    body_media: str = JSON
    reply: Any | None = None
    reply_media: str = JSON
    status: int = 200
    statuses: tuple[int, ...] = (200,)
    callers: frozenset[KeyKind] = EVERY_KEY
    safe: bool = False
    deprecated: bool = False
    served: bool = False
    refusals: Mapping[int, type[Model]] = field(default_factory=dict)


def query(name: str, kind: Any, *, default: Any = None, required: bool = False) -> Parameter:
    """A parameter in the query."""
    return Parameter(name, "query", kind, required=required, default=default)


def limit(most: int, *, default: int | None = None) -> Parameter:
    """How many items a page holds."""
    return query("limit", Annotated[int, Field(ge=1, le=most)], default=default)


CURSOR = query("cursor", str)


@dataclass(frozen=True, slots=True)
class Rows:
    """Writes the rows of one tag. What is said after the path is what `Operation` calls it; GETs are safe."""

    tag: str

    def get(self, id_: str, path: str, *parameters: Parameter, **facts: Any) -> Operation:
        return self._row("GET", id_, path, parameters, {"safe": True, **facts})

    def post(self, id_: str, path: str, *parameters: Parameter, **facts: Any) -> Operation:
        return self._row("POST", id_, path, parameters, facts)

    def put(self, id_: str, path: str, *parameters: Parameter, **facts: Any) -> Operation:
        return self._row("PUT", id_, path, parameters, facts)

    def patch(self, id_: str, path: str, *parameters: Parameter, **facts: Any) -> Operation:
        return self._row("PATCH", id_, path, parameters, facts)

    def delete(self, id_: str, path: str, *parameters: Parameter, **facts: Any) -> Operation:
        return self._row("DELETE", id_, path, parameters, facts)

    def _row(
        self, method: Method, id_: str, path: str, queries: tuple[Parameter, ...], facts: dict[str, Any]
    ) -> Operation:
        in_path = tuple(Parameter(name, "path", PATH_TYPES[name]) for name in re.findall(r"{(\w+)}", path))
        statuses = facts.setdefault("statuses", (facts.get("status", 200),))
        facts.setdefault("status", statuses[0])
        return Operation(id=id_, method=method, path=path, tag=self.tag, parameters=in_path + queries, **facts)
