"""What commands that change something share: waiting with a line on the terminal, and requests' common parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from lamplighter.cli.output import plain_of

if TYPE_CHECKING:
    from lamplighter.cli.session import Session

R = TypeVar("R")


def perform(session: Session, text: str, call: Callable[[], R]) -> R:
    """Do it, and tell on a terminal what is waited for."""
    with session.waiting(text):
        return call()


def given(**fields: Any) -> dict[str, Any]:
    """The fields that were said. Pure."""
    return {name: value for name, value in fields.items() if value is not None}


def compute_fields(cu: tuple[float, float] | None, suspend_timeout: int | None) -> dict[str, Any]:
    """Size and suspension of a compute as the API names them. Pure."""
    least, most = cu or (None, None)
    return given(
        autoscaling_limit_min_cu=least,
        autoscaling_limit_max_cu=most,
        suspend_timeout_seconds=suspend_timeout,
    )


def gone(reply: Any, **instead: Any) -> dict[str, Any]:
    """What a deletion answered, marked as such; for a 204 (it was gone already) what stood for it. Pure."""
    told: dict[str, Any] = plain_of({**instead, "operations": []} if reply is None else reply)
    return {**told, "deleted": True}
