"""`/api_keys` and `/organizations/{org_id}/api_keys`."""

from __future__ import annotations

from typing import Any

from lamplighter.api.secret import Secret
from lamplighter.control.features.api_keys.service import ApiKey, ApiKeys
from lamplighter.control.http.calls import Call, Reply, Routes, present


def show_listed(key: ApiKey) -> dict[str, Any]:
    """In a list the creator is an object, and `last_used_at` is null for a key that nobody used."""
    return {
        "id": key.id,
        "name": key.name,
        "created_at": key.created_at,
        "created_by": {"id": str(key.created_by), "name": key.creator_name, "image": key.creator_image},
        "last_used_at": key.last_used_at,
        "last_used_from_addr": key.last_used_from_addr,
        **present(project_id=key.project_id),
    }


def show_created(key: ApiKey, token: Secret) -> dict[str, Any]:
    """Where it is made and revoked, the creator is an id alone."""
    return {
        "id": key.id,
        "key": token.reveal(),
        "name": key.name,
        "created_at": key.created_at,
        "created_by": str(key.created_by),
        **present(project_id=key.project_id),
    }


def show_revoked(key: ApiKey) -> dict[str, Any]:
    return {**show_listed(key), "created_by": str(key.created_by), "revoked": True}


def routes(keys: ApiKeys) -> Routes:
    async def list_personal(call: Call) -> Reply:
        return Reply([show_listed(key) for key in await keys.list_personal(call.caller)])

    async def create_personal(call: Call) -> Reply:
        return Reply(show_created(*await keys.create_personal(call.caller, call.body.key_name)))

    async def revoke_personal(call: Call) -> Reply:
        return Reply(show_revoked(await keys.revoke_personal(call.caller, call.path["key_id"])))

    async def list_organization(call: Call) -> Reply:
        return Reply([show_listed(key) for key in await keys.list_organization(call.caller, call.path["org_id"])])

    async def create_organization(call: Call) -> Reply:
        key, token = await keys.create_organization(
            call.caller, call.path["org_id"], name=call.body.key_name, project_id=call.body.project_id
        )
        return Reply(show_created(key, token))

    async def revoke_organization(call: Call) -> Reply:
        return Reply(
            show_revoked(await keys.revoke_organization(call.caller, call.path["org_id"], call.path["key_id"]))
        )

    return {
        "listApiKeys": list_personal,
        "createApiKey": create_personal,
        "revokeApiKey": revoke_personal,
        "listOrgApiKeys": list_organization,
        "createOrgApiKey": create_organization,
        "revokeOrgApiKey": revoke_organization,
    }
