"""What a scripted transport objects to: faults of a test or of the code under test, so assertion errors, all of them.

ScriptError(AssertionError)
├── Unscripted          a request that nothing is scripted for
├── ImpossibleRequest   a request that the contract does not know
├── ImpossibleReply     a scripted answer that no server gives
└── Unused              answers that nobody asked for
"""

from __future__ import annotations


class ScriptError(AssertionError):
    """The script and what was sent do not fit."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or type(self).__doc__)


class Unscripted(ScriptError):
    """A request that nothing is scripted for."""


class ImpossibleRequest(ScriptError):
    """A request that the contract does not know."""


class ImpossibleReply(ScriptError):
    """A scripted answer that no server gives."""


class Unused(ScriptError):
    """Scripted answers that nobody asked for."""
