"""What an app's scope has beside ASGI's own, where whoever serves the app gives it; and who it says that asks."""

from __future__ import annotations

from starlette.types import Scope

#: The event loop's time when the first byte of the request came.
BEGAN = "lamplighter.began"
#: A function to call, without arguments, when somebody has logged in by this connection.
LOGGED_IN = "lamplighter.logged_in"
#: The `BoundedWebSocket` of a WebSocket.
SOCKET = "lamplighter.socket"


def client_of(scope: Scope) -> str | None:
    """The caller's address."""
    return scope["client"][0] if scope.get("client") else None


def note_login(scope: Scope) -> None:
    """Tell whoever serves the app, if it wants to know."""
    if (noted := scope.get(LOGGED_IN)) is not None:
        noted()
