"""Neon you can run yourself, and the tools to run any Neon.

    from lamplighter import Neon, AsyncNeon

The clients: `Neon`, `AsyncNeon`; what they take: `OMIT`, `Timeouts`; which server they talk to: `Server`.
What they give besides Neon's own objects: `Pager`, `AsyncPager`, `RawResponse`, `BranchFound`, `ProjectFound`.
What they raise: `NeonError` and below it `APIError` (`AuthenticationError`, `BadRequest`, `Conflict`, `Locked`,
`NotAvailable`, `NotFound`, `PermissionDenied`, `RateLimited`, `ServerError`, `UnreadableReply`), `Ambiguous`,
`ConfigurationError`, `ConnectionFailed`, `DeadlineExceeded`, `OperationFailed`.

Each is imported when it is first asked for, so that `import lamplighter` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lamplighter.client._async.client import AsyncNeon
    from lamplighter.client._async.pages import Pager as AsyncPager
    from lamplighter.client._sync.client import Neon
    from lamplighter.client._sync.pages import Pager
    from lamplighter.client.config import Server
    from lamplighter.client.errors import (
        Ambiguous,
        APIError,
        AuthenticationError,
        BadRequest,
        ConfigurationError,
        Conflict,
        ConnectionFailed,
        DeadlineExceeded,
        Locked,
        NeonError,
        NotAvailable,
        NotFound,
        OperationFailed,
        PermissionDenied,
        RateLimited,
        ServerError,
        UnreadableReply,
    )
    from lamplighter.client.options import Timeouts
    from lamplighter.client.payload import RawResponse
    from lamplighter.client.results import BranchFound, ProjectFound
    from lamplighter.client.spec import OMIT

__version__ = "0.1.0"

__all__ = [
    "OMIT",
    "APIError",
    "Ambiguous",
    "AsyncNeon",
    "AsyncPager",
    "AuthenticationError",
    "BadRequest",
    "BranchFound",
    "ConfigurationError",
    "Conflict",
    "ConnectionFailed",
    "DeadlineExceeded",
    "Locked",
    "Neon",
    "NeonError",
    "NotAvailable",
    "NotFound",
    "OperationFailed",
    "Pager",
    "PermissionDenied",
    "ProjectFound",
    "RateLimited",
    "RawResponse",
    "Server",
    "ServerError",
    "Timeouts",
    "UnreadableReply",
    "__version__",
]

#: Where each name is, and what it is called there; what is not here is an error.
_PLACES = {
    "AsyncNeon": ("_async.client", "AsyncNeon"),
    "AsyncPager": ("_async.pages", "Pager"),
    "BranchFound": ("results", "BranchFound"),
    "Neon": ("_sync.client", "Neon"),
    "OMIT": ("spec", "OMIT"),
    "Pager": ("_sync.pages", "Pager"),
    "ProjectFound": ("results", "ProjectFound"),
    "RawResponse": ("payload", "RawResponse"),
    "Server": ("config", "Server"),
    "Timeouts": ("options", "Timeouts"),
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, called = _PLACES.get(name, ("errors", name))
    found: object = getattr(import_module(f"{__name__}.client.{module}"), called)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
