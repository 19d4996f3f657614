"""`/users/me` and `/auth`."""

from __future__ import annotations

from datetime import UTC, datetime

from lamplighter.api.models.billing import BillingAccount, PaymentSource
from lamplighter.api.models.users import (
    AuthDetailsResponse,
    CurrentUserAuthAccount,
    CurrentUserInfoResponse,
)
from lamplighter.control.features.users.service import User, Users
from lamplighter.control.http.calls import Call, Reply, Routes

#: No plan ends here: what the numbers of a plan would limit is limited by the machine.
UNLIMITED = 1_000_000
MAX_CU = 56.0
PLAN = "scale"


def show_user(user: User) -> CurrentUserInfoResponse:
    return CurrentUserInfoResponse(
        active_seconds_limit=0,
        billing_account=BillingAccount(
            state="active",
            payment_source=PaymentSource(type=""),
            subscription_type=PLAN,
            payment_method="none",
            quota_reset_at_last=datetime(2000, 1, 1, tzinfo=UTC),
            name=user.name,
            email=user.email,
            address_city="",
            address_country="",
            address_line1="",
            address_line2="",
            address_postal_code="",
            address_state="",
        ),
        auth_accounts=[
            CurrentUserAuthAccount(
                email=user.email, image=user.image, login=user.login, name=user.name, provider="keycloak"
            )
        ],
        email=user.email,
        id=str(user.id),
        image=user.image,
        login=user.login,
        name=user.name,
        last_name=user.last_name,
        projects_limit=UNLIMITED,
        branches_limit=UNLIMITED,
        max_autoscaling_limit=MAX_CU,
        plan=PLAN,
    )


def routes(users: Users) -> Routes:
    async def me(call: Call) -> Reply:
        return Reply(show_user(await users.me(call.caller)))

    async def auth_details(call: Call) -> Reply:
        caller = call.caller
        if caller.org_id is not None:
            return Reply(AuthDetailsResponse(account_id=caller.org_id, auth_method="api_key_org"))
        return Reply(AuthDetailsResponse(account_id=str(caller.user_id), auth_method="api_key_user"))

    return {
        "getCurrentUserInfo": me,
        "getAuthDetails": auth_details,
    }
