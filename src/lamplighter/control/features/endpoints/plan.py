"""What an endpoint is given when it is made or changed. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from lamplighter.api.errors import BadRequest, NotServed

EndpointType = Literal["read_write", "read_only"]

SMALLEST_CU = 0.25
LARGEST_CU = 56.0
SHORTEST_SUSPEND = 60
LONGEST_SUSPEND = 604_800

#: What a project gives its endpoints when it does not say (contract section 3.2).
DEFAULTS: Mapping[str, Any] = {
    "autoscaling_limit_min_cu": SMALLEST_CU,
    "autoscaling_limit_max_cu": SMALLEST_CU,
    "suspend_timeout_seconds": 0,
}


@dataclass(frozen=True, slots=True)
class EndpointOptions:
    """The settled size and behaviour of an endpoint. Sizes are in compute units."""

    min_cu: float
    max_cu: float
    suspend_timeout_seconds: int
    settings: Mapping[str, Any]

    @property
    def pg_settings(self) -> dict[str, str]:
        return dict(self.settings.get("pg_settings") or {})


def settle_options(
    *,
    defaults: Mapping[str, Any],
    min_cu: float | None = None,
    max_cu: float | None = None,
    suspend_timeout_seconds: int | None = None,
    settings: Mapping[str, Any] | None = None,
) -> EndpointOptions:
    """Fill in what the request leaves open from the project's defaults. Raises BadRequest.

    Where only one end of the size is given, the other follows it if it has to: nobody who asks for a maximum of 2 means
    a minimum of 4 that a default happened to say.
    """
    known = {**DEFAULTS, **defaults}
    low = known["autoscaling_limit_min_cu"] if min_cu is None else min_cu
    high = known["autoscaling_limit_max_cu"] if max_cu is None else max_cu
    if min_cu is None:
        low = min(low, high)
    if max_cu is None:
        high = max(low, high)
    suspend = known["suspend_timeout_seconds"] if suspend_timeout_seconds is None else suspend_timeout_seconds
    inherited = {"pg_settings": known["pg_settings"]} if known.get("pg_settings") else {}
    return EndpointOptions(
        *check_size(float(low), float(high)), check_suspend(suspend), {**inherited, **(settings or {})}
    )


def check_size(low: float, high: float) -> tuple[float, float]:
    """Both ends again. Raises BadRequest."""
    if not SMALLEST_CU <= low <= high <= LARGEST_CU:
        raise BadRequest(
            f"autoscaling limits must satisfy {SMALLEST_CU} <= min <= max <= {LARGEST_CU:g} compute units,"
            f" and are {low:g} and {high:g}"
        )
    return low, high


def check_suspend(seconds: int) -> int:
    """The timeout again: -1 (never), 0 (the default of 300 s), or 60 to 604800. Raises BadRequest."""
    if seconds not in (-1, 0) and not SHORTEST_SUSPEND <= seconds <= LONGEST_SUSPEND:
        raise BadRequest(
            f"suspend_timeout_seconds must be -1, 0, or {SHORTEST_SUSPEND} to {LONGEST_SUSPEND}, and is {seconds}"
        )
    return int(seconds)


def refuse_moving(branch_id: str | None, present_branch: str) -> None:
    """Raise NotServed when an update asks for another branch."""
    if branch_id is not None and branch_id != present_branch:
        raise NotServed("moving an endpoint to another branch is not available on this server")
