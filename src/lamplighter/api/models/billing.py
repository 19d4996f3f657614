"""How an account or an organization pays. Lamplighter bills nobody; clients still read the fields."""

from typing import Annotated

from pydantic import Field

from lamplighter.api.models.base import Email, Given, Int64, Maybe, Model, OneOf, Timestamp

BillingAccountState = Annotated[str, OneOf("UNKNOWN", "active", "suspended", "deactivated", "deleted")]

BillingPaymentMethod = Annotated[
    str,
    OneOf(
        "UNKNOWN",
        "none",
        "stripe",
        "direct_payment",
        "aws_mp",
        "azure_mp",
        "vercel_mp",
        "staff",
        "trial",
        "sponsorship",
        "shared_payment_token",
    ),
]

BillingSubscriptionType = Annotated[
    str,
    OneOf(
        "UNKNOWN",
        "direct_sales",
        "direct_sales_v3",
        "aws_marketplace",
        "free_v2",
        "free_v3",
        "launch",
        "launch_v3",
        "scale",
        "scale_v3",
        "business",
        "vercel_pg_legacy",
    ),
]


class PaymentSourceBankCard(Model):
    """The card that pays, as far as it may be shown."""

    last4: str
    brand: Maybe[
        Annotated[str, OneOf("amex", "diners", "discover", "jcb", "mastercard", "unionpay", "unknown", "visa")]
    ] = None
    exp_month: Maybe[Int64] = None
    exp_year: Maybe[Int64] = None


class PaymentSource(Model):
    """Where the money comes from."""

    type: str
    card: Maybe[PaymentSourceBankCard] = None


class PlanVersion(Model):
    """The version of a plan."""

    major: int
    minor: int


class PlanDetails(Model):
    """A plan by name and version."""

    name: str
    version: Maybe[PlanVersion] = None


class BillingAccount(Model):
    """Name, address and plan that bills go to."""

    state: BillingAccountState
    payment_source: PaymentSource
    subscription_type: BillingSubscriptionType
    payment_method: BillingPaymentMethod
    quota_reset_at_last: Timestamp
    name: str
    email: Given[Email]
    address_city: str
    address_country: str
    address_country_name: Maybe[str] = None
    address_line1: str
    address_line2: str
    address_postal_code: str
    address_state: str
    orb_portal_url: Maybe[str] = None
    tax_id: Maybe[str] = None
    tax_id_type: Maybe[str] = None
    plan_details: Maybe[PlanDetails] = None
    spending_limit_cents: Int64 | None = None


class SpendingLimitResponse(Model):
    """The most that an organization wants to spend in a month; null for no limit."""

    spending_limit_cents: Int64 | None


class SpendingLimitUpdateRequest(Model):
    """The most to spend in a month, in cents."""

    spending_limit_cents: Annotated[Int64, Field(ge=1)]
