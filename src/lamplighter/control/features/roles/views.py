"""A role as the API shows it."""

from __future__ import annotations

from lamplighter.api.models import roles as wire
from lamplighter.api.secret import Secret
from lamplighter.control.features.roles.service import Role
from lamplighter.control.http.calls import present


def show_role(role: Role, password: Secret | None = None) -> wire.Role:
    """The password is shown where it was just made, and nowhere else."""
    return wire.Role(
        branch_id=role.branch_id,
        name=role.name,
        protected=role.protected,
        authentication_method=role.authentication_method,
        created_at=role.created_at,
        updated_at=role.updated_at,
        **present(password=password.reveal() if password is not None else None),
    )
