"""The life of API keys: minted, put into stores, proven, revoked; what Neon itself does not do.

    from lamplighter.keys import Journal, Minter, Naming, Rotation, Scope, parse_sink

    with Minter.parse("keyring:neon/minter").connect() as server, Journal(directory) as journal:
        Rotation(server, journal, Naming("ci"), scope=Scope(kind="personal"), sinks=[parse_sink(address)]).run()

`Manager` has what a policy adds to that. What is raised is below `KeysError`. Each name is imported when it is first
asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lamplighter.keys.errors import KeysError
    from lamplighter.keys.journal import Journal
    from lamplighter.keys.manager import Manager, Target, load_policy
    from lamplighter.keys.minter import Minter
    from lamplighter.keys.naming import Naming
    from lamplighter.keys.neon import NeonKeys
    from lamplighter.keys.policy import Policy, parse_policy
    from lamplighter.keys.records import Scope
    from lamplighter.keys.rotate import Event, Outcome, Rotation
    from lamplighter.keys.sinks.base import Sink
    from lamplighter.keys.sinks.registry import parse_sink

__all__ = [
    "Event",
    "Journal",
    "KeysError",
    "Manager",
    "Minter",
    "Naming",
    "NeonKeys",
    "Outcome",
    "Policy",
    "Rotation",
    "Scope",
    "Sink",
    "Target",
    "load_policy",
    "parse_policy",
    "parse_sink",
]

_PLACES = {
    "Event": "rotate",
    "Journal": "journal",
    "KeysError": "errors",
    "Manager": "manager",
    "Minter": "minter",
    "Naming": "naming",
    "NeonKeys": "neon",
    "Outcome": "rotate",
    "Policy": "policy",
    "Rotation": "rotate",
    "Scope": "records",
    "Sink": "sinks.base",
    "Target": "manager",
    "load_policy": "manager",
    "parse_policy": "policy",
    "parse_sink": "sinks.registry",
}


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: object = getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
