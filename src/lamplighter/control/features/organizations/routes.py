"""`/organizations/{org_id}`, its members, and the organizations of a caller."""

from __future__ import annotations

from lamplighter.api.models import organizations as wire
from lamplighter.control.features.organizations.service import Member, Organization, Organizations
from lamplighter.control.http.calls import Call, Reply, Routes, present


def show_organization(organization: Organization) -> wire.Organization:
    return wire.Organization(
        id=organization.id,
        name=organization.name,
        handle=organization.handle,
        plan=organization.plan,
        created_at=organization.created_at,
        managed_by="console",
        updated_at=organization.updated_at,
    )


def show_member(member: Member) -> wire.MemberWithUser:
    return wire.MemberWithUser(
        member=wire.Member(
            id=str(member.id),
            user_id=str(member.user_id),
            org_id=member.org_id,
            role=member.role,
            joined_at=member.joined_at,
        ),
        user=wire.MemberUserInfo(email=member.email),
    )


def routes(organizations: Organizations) -> Routes:
    async def of_caller(call: Call) -> Reply:
        found = await organizations.of_caller(call.caller)
        return Reply({"organizations": [show_organization(one) for one in found]})

    async def get(call: Call) -> Reply:
        return Reply(show_organization(await organizations.get(call.caller, call.path["org_id"])))

    async def members(call: Call) -> Reply:
        query = call.query
        found, following = await organizations.members(
            call.caller,
            call.path["org_id"],
            sort_by=query["sort_by"],
            descending=query["sort_order"] == "desc",
            limit=query["limit"],
            cursor=query["cursor"],
        )
        pagination = None
        if following is not None:
            pagination = {"next": following, "sort_by": query["sort_by"], "sort_order": query["sort_order"]}
        return Reply({"members": [show_member(one) for one in found], **present(pagination=pagination)})

    return {"getCurrentUserOrganizations": of_caller, "getOrganization": get, "getOrganizationMembers": members}
