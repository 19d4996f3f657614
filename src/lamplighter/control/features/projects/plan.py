"""What a new project is given. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lamplighter.address_ranges import read_range
from lamplighter.api.errors import BadRequest, NotServed
from lamplighter.control.features.endpoints.plan import DEFAULTS, settle_options
from lamplighter.control.features.names import check_database_name, check_role_name
from lamplighter.control.features.regions.plan import check_region

DEFAULT_MAJOR = 17
DEFAULT_DATABASE = "neondb"
DEFAULT_BRANCH = "main"
HISTORY_SECONDS = 86_400
PROVISIONER = "k8s-neonvm"

#: Neon's settings of a new project (contract section 3.2).
SETTINGS: Mapping[str, Any] = {
    "allowed_ips": {"ips": [], "protected_branches_only": False},
    "enable_logical_replication": False,
    "block_public_connections": False,
    "block_vpc_connections": False,
}


@dataclass(frozen=True, slots=True)
class ProjectWish:
    """A project to be made. `name` None means: as its id. `branch_annotations` go to its first branch."""

    name: str | None
    org_id: str | None
    region_id: str
    pg_version: int
    provisioner: str
    store_passwords: bool
    history_retention_seconds: int
    settings: Mapping[str, Any]
    default_endpoint_settings: Mapping[str, Any]
    branch_name: str
    database_name: str
    role_name: str
    branch_annotations: Mapping[str, str]


def plain(model: Any) -> dict[str, Any]:
    """What a model was given, as JSON values; nothing for None."""
    return {} if model is None else model.model_dump(mode="json", exclude_unset=True)


def wish(project: Any, *, default_region: str) -> ProjectWish:
    """What a request body asks for, with Neon's defaults. Raises BadRequest."""
    branch = project.branch
    database = check_database_name((branch and branch.database_name) or DEFAULT_DATABASE)
    role = (branch and branch.role_name) or default_role(database)
    return ProjectWish(
        name=project.name,
        org_id=project.org_id,
        region_id=check_region(project.region_id or default_region),
        pg_version=project.pg_version or DEFAULT_MAJOR,
        provisioner=project.provisioner or PROVISIONER,
        store_passwords=project.store_passwords is not False,
        history_retention_seconds=(
            HISTORY_SECONDS if project.history_retention_seconds is None else project.history_retention_seconds
        ),
        settings=check_settings(merge(SETTINGS, plain(project.settings))),
        default_endpoint_settings=endpoint_defaults(
            {},
            {
                **plain(project.default_endpoint_settings),
                **{
                    name: getattr(project, name)
                    for name in ("autoscaling_limit_min_cu", "autoscaling_limit_max_cu")
                    if getattr(project, name) is not None
                },
            },
        ),
        branch_name=(branch and branch.name) or DEFAULT_BRANCH,
        database_name=database,
        role_name=check_role_name(role),
        branch_annotations=dict((branch and branch.annotations) or {}),
    )


def default_role(database: str) -> str:
    """The owner of a database that nobody named: Neon's `<database>_owner`. Raises BadRequest where that is no name."""
    role = f"{database}_owner"
    try:
        return check_role_name(role)
    except BadRequest as error:
        raise BadRequest(f"{role!r}, the default owner of {database!r}, cannot be made; give a role_name") from error


def endpoint_defaults(present: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The project's defaults after a request. Raises BadRequest when no endpoint could be made with them."""
    options = settle_options(
        defaults={**DEFAULTS, **present},
        min_cu=given.get("autoscaling_limit_min_cu"),
        max_cu=given.get("autoscaling_limit_max_cu"),
        suspend_timeout_seconds=given.get("suspend_timeout_seconds"),
    )
    settled = {
        "autoscaling_limit_min_cu": options.min_cu,
        "autoscaling_limit_max_cu": options.max_cu,
        "suspend_timeout_seconds": options.suspend_timeout_seconds,
    }
    return {**present, **given, **settled}


def merge(present: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings after a request: what it names is replaced, the rest stays; objects are merged by their fields."""
    merged = dict(present)
    for name, value in given.items():
        before = merged.get(name)
        merged[name] = {**before, **value} if isinstance(before, dict) and isinstance(value, dict) else value
    return merged


def check_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings again. Raises NotServed for what would be promised and not kept, BadRequest for contradictions."""
    for address in settings.get("allowed_ips", {}).get("ips") or []:
        check_address(address)
    for name in ("hipaa", "block_public_connections", "block_vpc_connections"):
        if settings.get(name):
            raise NotServed(f"{name} is not available on this server")
    return settings


def check_address(text: str) -> None:
    """Raise BadRequest unless this is an address, a block (`10.0.0.0/8`), or a range (`10.0.0.1-10.0.0.9`)."""
    if read_range(text) is None:
        raise BadRequest(
            f"allowed_ips: {text!r} is no address; give addresses, blocks (10.0.0.0/8) or ranges (10.0.0.1-10.0.0.9)"
        )


def check_logical_replication(before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    """Raise BadRequest for turning logical replication off again, which Neon does not allow: slots would be lost."""
    if before.get("enable_logical_replication") and not after.get("enable_logical_replication"):
        raise BadRequest("logical replication cannot be disabled once it has been enabled")
