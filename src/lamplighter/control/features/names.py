"""Which names roles and databases may have. Pure."""

from __future__ import annotations

from lamplighter.api.errors import BadRequest

MAX_BYTES = 63
RESERVED_ROLES = frozenset(
    {
        "cloud_admin",
        "cloud_copier",
        "current_role",
        "current_user",
        "neon_superuser",
        "none",
        "postgres",
        "public",
        "session_user",
    }
)
RESERVED_DATABASES = frozenset({"postgres", "template0", "template1"})


def check_role_name(name: str) -> str:
    """The name again. Raises BadRequest."""
    _check(name, "role_name")
    if name.lower() in RESERVED_ROLES or name.lower().startswith("pg_"):
        raise BadRequest(f"role name {name!r} is reserved; choose another", code="RESERVED_NAME")
    return name


def check_database_name(name: str) -> str:
    """The name again. Raises BadRequest."""
    _check(name, "database_name")
    if name.lower() in RESERVED_DATABASES:
        raise BadRequest(f"database name {name!r} is reserved; choose another", code="RESERVED_NAME")
    return name


def _check(name: str, field: str) -> None:
    size = len(name.encode("utf-8", "surrogatepass"))
    if not 1 <= size <= MAX_BYTES:
        raise BadRequest(f"{field} must be 1 to {MAX_BYTES} bytes long, and has {size}")
    if not name.isprintable():
        raise BadRequest(f"{field} holds characters that cannot be printed")
