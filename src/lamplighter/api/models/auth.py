"""Neon Auth of a branch: sign-in for an application's own users."""

from typing import Annotated

from pydantic import Field

from lamplighter.api.models.base import Email, Given, Hidden, Id, Int32, Maybe, Model, Name, OneOf, Timestamp, Uri


class CreateBranchNeonAuthNewUserRequest(Model):
    """A user to make."""

    email: Email
    name: Maybe[Annotated[str, Field(min_length=1, max_length=255)]] = None


NeonAuthSupportedAuthProvider = Annotated[str, OneOf("mock", "stack", "better_auth")]


class EnableNeonAuthIntegrationRequest(Model):
    """How Neon Auth is to be set up."""

    auth_provider: NeonAuthSupportedAuthProvider
    database_name: Maybe[str] = None


NeonAuthOauthProviderId = Annotated[str, OneOf("google", "github", "microsoft", "vercel")]

NeonAuthOauthProviderType = Annotated[str, OneOf("standard", "shared")]


class NeonAuthOauthProvider(Model):
    """A provider that users sign in with."""

    id: NeonAuthOauthProviderId
    type: NeonAuthOauthProviderType
    client_id: Maybe[str] = None
    client_secret: Hidden[Maybe[str]] = None


class ListNeonAuthOauthProvidersResponse(Model):
    providers: list[NeonAuthOauthProvider]


class NeonAuthAddDomainToRedirectURIWhitelistRequest(Model):
    """A domain that users may be sent back to."""

    domain: Uri
    auth_provider: NeonAuthSupportedAuthProvider


class NeonAuthAddOAuthProviderRequest(Model):
    """A provider that users may sign in with; without a client of one's own it is Neon's."""

    id: NeonAuthOauthProviderId
    client_id: Maybe[str] = None
    client_secret: Hidden[Maybe[str]] = None
    microsoft_tenant_id: Maybe[str] = None


class NeonAuthAllowLocalhostResponse(Model):
    """Whether applications on localhost may use Neon Auth."""

    allow_localhost: bool


class NeonAuthConfigResponse(Model):
    name: str


class NeonAuthConfigUpdate(Model):
    name: Name


class NeonAuthCreateIntegrationResponse(Model):
    """A new Neon Auth, with its keys."""

    auth_provider: NeonAuthSupportedAuthProvider
    auth_provider_project_id: str
    pub_client_key: str
    secret_server_key: Hidden[str]
    jwks_url: str
    schema_name: str
    table_name: str
    base_url: Maybe[str] = None


class NeonAuthCreateNewUserResponse(Model):
    id: str


class NeonAuthDeleteDomainFromRedirectURIWhitelistItem(Model):
    domain: Uri


class NeonAuthDeleteDomainFromRedirectURIWhitelistRequest(Model):
    """Domains that users may no longer be sent back to."""

    auth_provider: NeonAuthSupportedAuthProvider
    domains: list[NeonAuthDeleteDomainFromRedirectURIWhitelistItem]


NeonAuthEmailVerificationMethod = Annotated[str, OneOf("link", "otp")]


class NeonAuthEmailAndPasswordConfig(Model):
    """Sign-in by email address and password."""

    enabled: bool
    email_verification_method: NeonAuthEmailVerificationMethod
    require_email_verification: bool
    auto_sign_in_after_verification: bool
    send_verification_email_on_sign_up: bool
    send_verification_email_on_sign_in: bool
    disable_sign_up: bool


class NeonAuthEmailAndPasswordConfigUpdate(Model):
    enabled: Maybe[bool] = None
    email_verification_method: Maybe[NeonAuthEmailVerificationMethod] = None
    require_email_verification: Maybe[bool] = None
    auto_sign_in_after_verification: Maybe[bool] = None
    send_verification_email_on_sign_up: Maybe[bool] = None
    send_verification_email_on_sign_in: Maybe[bool] = None
    disable_sign_up: Maybe[bool] = None


class SharedEmailServer(Model):
    """The SMTP server that Neon shares."""

    sender_email: Maybe[str] = None
    sender_name: Maybe[str] = None


class StandardEmailServer(Model):
    """An SMTP server of one's own."""

    host: str
    port: int
    username: str
    password: Hidden[str]
    sender_email: str
    sender_name: str


NeonAuthEmailServerConfig = StandardEmailServer | SharedEmailServer

NeonAuthProviderProjectOwnedBy = Annotated[str, OneOf("user", "neon")]

NeonAuthProviderProjectTransferStatus = Annotated[str, OneOf("initiated", "finished")]


class NeonAuthIntegration(Model):
    """Neon Auth as it is set up."""

    auth_provider: NeonAuthSupportedAuthProvider
    auth_provider_project_id: str
    branch_id: Given[Id]
    db_name: str
    created_at: Timestamp
    owned_by: NeonAuthProviderProjectOwnedBy
    transfer_status: Maybe[NeonAuthProviderProjectTransferStatus] = None
    jwks_url: str
    base_url: Maybe[str] = None
    name: Maybe[Given[Name]] = None


class NeonAuthMagicLinkConfig(Model):
    """Sign-in by a link in a message; `expires_in` is in minutes."""

    enabled: bool
    expires_in: Given[Annotated[Int32, Field(ge=5, le=1440)]]
    disable_sign_up: bool


class NeonAuthMagicLinkConfigUpdate(Model):
    enabled: Maybe[bool] = None
    expires_in: Maybe[Annotated[Int32, Field(ge=5, le=1440)]] = None
    disable_sign_up: Maybe[bool] = None


class NeonAuthOrganizationConfig(Model):
    """How organizations of an application's users work."""

    enabled: bool
    organization_limit: Given[Annotated[Int32, Field(ge=1)]]
    membership_limit: Given[Annotated[Int32, Field(ge=1)]]
    creator_role: Annotated[str, OneOf("admin", "owner")]
    send_invitation_email: bool


class NeonAuthOrganizationConfigUpdate(Model):
    enabled: Maybe[bool] = None
    organization_limit: Maybe[Annotated[Int32, Field(ge=1)]] = None
    membership_limit: Maybe[Annotated[Int32, Field(ge=1)]] = None
    creator_role: Maybe[Annotated[str, OneOf("admin", "owner")]] = None
    send_invitation_email: Maybe[bool] = None


class NeonAuthPhoneNumberConfig(Model):
    """Sign-in by a code sent to a telephone; `otp_expires_in` is in seconds."""

    enabled: bool
    otp_expires_in: Maybe[Given[Annotated[int, Field(ge=60, le=600)]]] = 300


class NeonAuthPhoneNumberConfigUpdate(Model):
    enabled: Maybe[bool] = None
    otp_expires_in: Maybe[Annotated[int, Field(ge=60, le=600)]] = None


class NeonAuthPluginConfigs(Model):
    """The settings of all parts of Neon Auth."""

    organization: Maybe[NeonAuthOrganizationConfig] = None
    magic_link: Maybe[NeonAuthMagicLinkConfig] = None
    phone_number: Maybe[NeonAuthPhoneNumberConfig] = None
    email_provider: Maybe[NeonAuthEmailServerConfig] = None
    email_and_password: Maybe[NeonAuthEmailAndPasswordConfig] = None
    oauth_providers: Maybe[list[NeonAuthOauthProvider]] = None
    allow_localhost: Maybe[bool] = None


class NeonAuthRedirectURIWhitelistDomain(Model):
    """A domain that users may be sent back to."""

    domain: str
    auth_provider: NeonAuthSupportedAuthProvider


class NeonAuthRedirectURIWhitelistResponse(Model):
    """Domains that users may be sent back to."""

    domains: list[NeonAuthRedirectURIWhitelistDomain]


class NeonAuthUpdateOAuthProviderRequest(Model):
    client_id: Maybe[str] = None
    client_secret: Hidden[Maybe[str]] = None
    microsoft_tenant_id: Maybe[str] = None


NeonAuthWebhookEvent = Annotated[
    str,
    OneOf(
        "user.before_create",
        "user.created",
        "send.otp",
        "send.magic_link",
        "organization.invitation.created",
        "organization.invitation.accepted",
        "phone_number.verified",
    ),
]


class NeonAuthWebhookConfig(Model):
    """Which events Neon Auth reports, and where."""

    enabled: bool
    webhook_url: Maybe[str] = None
    enabled_events: Maybe[list[NeonAuthWebhookEvent]] = None
    timeout_seconds: Maybe[Given[Annotated[int, Field(ge=1, le=10)]]] = 5


class SendNeonAuthTestEmailRequest(StandardEmailServer):
    """The SMTP server to try, and who gets the message."""

    recipient_email: Email


class SendNeonAuthTestEmailResponse(Model):
    """Whether the message went out."""

    success: bool
    error_message: Maybe[str] = None


class UpdateNeonAuthAllowLocalhostRequest(Model):
    allow_localhost: bool


class UpdateNeonAuthUserRoleRequest(Model):
    roles: Annotated[list[str], Field(min_length=1)]


class UpdateNeonAuthUserRoleResponse(Model):
    id: str


class NeonAuthDisableRequest(Model):
    """Whether Neon Auth's tables go too."""

    delete_data: bool = False
