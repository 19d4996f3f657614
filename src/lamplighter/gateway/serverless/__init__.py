"""SQL over HTTP (`POST /sql`) and Postgres over WebSocket (`/v2`), as Neon's serverless driver speaks them.

An ASGI app that connects to endpoints through their own doors, as any client does: there they are woken, limited and
counted. Not served: logging in with a JWT, and COPY over HTTP.
"""

from lamplighter.gateway.serverless.app import UVICORN, Serverless, app
from lamplighter.gateway.serverless.bounded_websocket import BoundedWebSocket
from lamplighter.gateway.serverless.errors import NotAllowed, ServerlessError, SqlFailed, TooBusy, UnknownHost
from lamplighter.gateway.serverless.limits import Limits
from lamplighter.gateway.serverless.scopes import BEGAN, LOGGED_IN
from lamplighter.gateway.serverless.targets import Resolve, Target
from lamplighter.gateway.serverless.warm import Warmth

__all__ = [
    "BEGAN",
    "LOGGED_IN",
    "UVICORN",
    "BoundedWebSocket",
    "Limits",
    "NotAllowed",
    "Resolve",
    "Serverless",
    "ServerlessError",
    "SqlFailed",
    "Target",
    "TooBusy",
    "UnknownHost",
    "Warmth",
    "app",
]
