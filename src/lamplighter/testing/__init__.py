"""For tests of programs that use Neon: a transport that answers from a script, and a pytest plugin that makes branches.

`lamplighter.testing.plugin` is loaded by pytest itself. Nothing is imported before it is used: every pytest run on a
machine with Lamplighter loads this package.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lamplighter.testing.branches import NeonBranch
    from lamplighter.testing.dsn import Dsn
    from lamplighter.testing.errors import ImpossibleReply, ImpossibleRequest, ScriptError, Unscripted, Unused
    from lamplighter.testing.examples import example
    from lamplighter.testing.transport import Answer, ScriptedTransport, SentRequest

__all__ = [
    "Answer",
    "Dsn",
    "ImpossibleReply",
    "ImpossibleRequest",
    "NeonBranch",
    "ScriptError",
    "ScriptedTransport",
    "SentRequest",
    "Unscripted",
    "Unused",
    "example",
]

_HOMES = {
    "Answer": "transport",
    "Dsn": "dsn",
    "ImpossibleReply": "errors",
    "ImpossibleRequest": "errors",
    "NeonBranch": "branches",
    "ScriptError": "errors",
    "ScriptedTransport": "transport",
    "SentRequest": "transport",
    "Unscripted": "errors",
    "Unused": "errors",
    "example": "examples",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
