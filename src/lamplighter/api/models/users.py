"""Who is calling: the user of a personal key, and their account."""

from typing import Annotated

from lamplighter.api.models.base import DEPRECATED, Email, Given, Int64, Maybe, Model, OneOf
from lamplighter.api.models.billing import BillingAccount


class AuthDetailsResponse(Model):
    """Which account a request is made for, and by which kind of credentials."""

    account_id: str
    auth_method: Annotated[str, OneOf("keycloak", "session_cookie", "api_key_user", "api_key_org", "oauth")]
    auth_data: Maybe[str] = None


IdentityProviderId = Annotated[
    str, OneOf("github", "google", "hasura", "microsoft", "microsoftv2", "vercelmp", "keycloak")
]


class CurrentUserAuthAccount(Model):
    """An identity that the user can sign in with."""

    email: Given[Email]
    image: str
    login: Annotated[str, DEPRECATED]
    name: str
    provider: IdentityProviderId


class CurrentUserInfoResponse(Model):
    """The user of a personal key, with the limits of their plan."""

    active_seconds_limit: Int64
    billing_account: Maybe[BillingAccount] = None
    auth_accounts: list[CurrentUserAuthAccount]
    email: Given[Email]
    id: str
    image: str
    login: Annotated[str, DEPRECATED]
    name: str
    last_name: str
    projects_limit: Int64
    branches_limit: Int64
    max_autoscaling_limit: float
    compute_seconds_limit: Maybe[Int64] = None
    plan: str
