"""Organizations, their members, and moving projects between them."""

from typing import Annotated

from pydantic import Field

from lamplighter.api.models.base import Email, Given, Id, Maybe, Model, OneOf, Timestamp, Uuid
from lamplighter.api.models.common import CursorPaginationResponse


class Organization(Model):
    """The owner of projects: a person's own, or a team's."""

    id: Given[Id]
    name: str
    handle: str
    plan: str
    created_at: Timestamp
    managed_by: str
    updated_at: Timestamp
    allow_hipaa_projects: Maybe[bool] = None
    require_mfa: Maybe[bool] = None


class OrganizationsResponse(Model):
    """The organizations that the caller belongs to."""

    organizations: list[Organization]


MemberRole = Annotated[str, OneOf("admin", "member", "editor", "viewer", "collaborator")]


class Member(Model):
    """A user's place in an organization."""

    id: Given[Uuid]
    user_id: Given[Uuid]
    org_id: Given[Id]
    role: MemberRole
    joined_at: Maybe[Timestamp] = None


class MemberUserInfo(Model):
    """What a member's organization may know of the user."""

    email: Given[Email]
    has_mfa: Maybe[bool] = None
    deactivated_at: Maybe[Timestamp] = None


class MemberWithUser(Model):
    """A member and the user behind it."""

    member: Member
    user: MemberUserInfo


class OrganizationMembersResponse(Model):
    """Members of an organization."""

    members: list[MemberWithUser]


class OrganizationMembersPage(OrganizationMembersResponse, CursorPaginationResponse):
    """A page of an organization's members."""


class OrganizationMemberUpdateRequest(Model):
    """The role that a member is to have."""

    role: MemberRole


class Invitation(Model):
    """An invitation that was not taken up yet."""

    id: Given[Uuid]
    email: Given[Email]
    org_id: Given[Id]
    invited_by: Given[Uuid]
    invited_at: Timestamp
    role: MemberRole


class OrganizationInvitationsResponse(Model):
    """Open invitations of an organization."""

    invitations: list[Invitation]


class OrganizationInviteCreateRequest(Model):
    """Whom to invite, and as what."""

    email: Email
    role: MemberRole


class OrganizationInvitesCreateRequest(Model):
    """Invitations to send."""

    invitations: list[OrganizationInviteCreateRequest]


class TransferProjectsToOrganizationRequest(Model):
    """The projects to move, and where to."""

    destination_org_id: Id
    project_ids: Annotated[list[Id], Field(min_length=1, max_length=400)]


class LimitUnsatisfied(Model):
    """A limit of the destination that the projects would break."""

    name: str
    expected: str
    actual: str


class LimitsUnsatisfiedResponse(Model):
    """Why projects cannot move: the limits they would break."""

    limits: list[LimitUnsatisfied]


class ProjectWithIntegration(Model):
    """A project that cannot move, and the integration that holds it."""

    id: Given[Id]
    integration: str


class ProjectsWithIntegrationResponse(Model):
    """Why projects cannot move: their integrations."""

    projects: list[ProjectWithIntegration]
