"""The AI gateway of a branch."""

from typing import Annotated

from lamplighter.api.models.base import Model, OneOf, Uri


class BranchAiGateway(Model):
    """Where the AI gateway of a branch is reached."""

    enabled: bool
    base_url: Uri


class BranchAiGatewayNotEnabled(Model):
    """Why a branch has no AI gateway."""

    code: str
    message: str
    reason: Annotated[str, OneOf("ai_gateway_unavailable", "branch_not_found")]
