"""Models hold secrets, and do not show them."""

import importlib
import pkgutil
import re

import pytest

from lamplighter.api import models
from lamplighter.api.models.base import Model
from lamplighter.api.models.endpoints import ConnectionDetails
from lamplighter.api.models.roles import Role, RolePasswordResponse

LOOKS_SECRET = re.compile(r"pass|secret|token|key|credential|ur[il]$|environment|headers", re.IGNORECASE)
#: These look like secrets, and are none: names, ids, addresses that anybody may know, switches.
KNOWN = {
    "AddProjectJWKSRequest.jwks_url",
    "AdvisorIssue.cache_key",
    "ApiKeyCreateRequest.key_name",
    "BillingAccount.orb_portal_url",
    "BranchAiGateway.base_url",
    "BucketObject.key",
    "CreateCredentialResponse.token_id",
    "CreateCredentialResponse.token_id_short",
    "CredentialMeta.token_id",
    "CredentialMeta.token_id_short",
    "DataAPICreateRequest.jwks_url",
    "DataAPICreateResponse.url",
    "DataAPIResponse.url",
    "DataAPISettings.jwt_role_claim_key",
    "JWKS.jwks_url",
    "ListCredentialsResponse.credentials",
    "NeonAuthCreateIntegrationResponse.base_url",
    "NeonAuthCreateIntegrationResponse.jwks_url",
    "NeonAuthCreateIntegrationResponse.pub_client_key",
    "NeonAuthIntegration.base_url",
    "NeonAuthIntegration.jwks_url",
    "NeonAuthPluginConfigs.email_and_password",
    "NeonAuthWebhookConfig.webhook_url",
    "NeonFunction.invocation_url",
    "NeonFunctionDeployment.environment",
}


def fields():
    for module in pkgutil.iter_modules(models.__path__):
        for kind in vars(importlib.import_module(f"{models.__name__}.{module.name}")).values():
            if isinstance(kind, type) and issubclass(kind, Model):
                for name, field in kind.model_fields.items():
                    yield kind, name, field


def own_name(kind, name):
    """By the class that says the field first."""
    first = [each for each in kind.__mro__ if name in vars(each).get("__annotations__", {})][-1]
    return f"{first.__name__}.{name}"


def test_whatever_looks_secret_is_hidden_or_known_to_be_none():
    shown = {
        own_name(kind, name)
        for kind, name, field in fields()
        if LOOKS_SECRET.search(name) and field.repr and field.annotation not in (bool, bool | None)
    }
    assert shown == KNOWN


def test_what_is_hidden_is_nowhere_shown():
    """A subclass may not show a field again."""
    hidden = {own_name(kind, name) for kind, name, field in fields() if not field.repr}
    assert {own_name(kind, name) for kind, name, field in fields() if field.repr} & hidden == set()
    assert "Role.password" in hidden


def test_a_parent_hides_what_its_parts_hide():
    details = ConnectionDetails.model_validate(
        {
            "connection_uri": "postgresql://r:hunter2@h/d",
            "connection_parameters": {
                "database": "d",
                "password": "hunter2",
                "role": "r",
                "host": "h",
                "pooler_host": "h",
            },
        }
    )
    assert "hunter2" not in f"{details!r} {details}"
    assert "role='r'" in repr(details)
    assert details.model_dump()["connection_parameters"]["password"] == "hunter2"


@pytest.mark.parametrize(
    "name", ["new_password", "client_secret", "api_token", "key", "connection_uri", "download_url"]
)
def test_secrets_that_a_newer_server_sends_are_not_shown_either(name):
    reply = RolePasswordResponse.model_validate({"password": "hunter2", name: "hunter3", "mood": "good"})
    assert "hunter" not in repr(reply)
    assert "mood='good'" in repr(reply)
    assert getattr(reply, name) == "hunter3"


def test_a_secret_is_read_and_sent_as_ever():
    time = "2026-01-31T12:00:00Z"
    text = f'{{"branch_id":"br","name":"r","password":"p","created_at":"{time}","updated_at":"{time}"}}'
    role = Role.model_validate_json(text)
    assert role.password == "p"
    assert role.model_dump_json() == text
    assert "password" not in Role.model_validate_json(text.replace('"password":"p",', "")).model_dump()
