"""`neon.connect`: a psycopg connection to a branch, which is tried again while its endpoint comes up.

The password is in no message, and in no frame of an error that leaves here: psycopg's errors carry it, and end here.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import anyio

from lamplighter.api.secret import Secret
from lamplighter.client.errors import APIError, ConfigurationError, ConnectionFailed, DeadlineExceeded
from lamplighter.client.waiting import DONE, FAILED
from lamplighter.client.waking import Outlook, Refusal, attempt_seconds, pauses, refusal, unmoved

if TYPE_CHECKING:
    from psycopg import AsyncConnection
    from psycopg.rows import TupleRow

    from lamplighter.client._async.client import AsyncNeon

_HINT: Final = "check role, password and database: neon.roles.reset_password(...) gives a role another password"


async def connect(
    neon: AsyncNeon,
    project_id: str,
    *,
    branch: str | None = None,
    endpoint: str | None = None,
    database: str | None = None,
    role: str | None = None,
    pooled: bool = False,
    timeout: float = 60.0,  # noqa: ASYNC109 - the twin has one too
    autocommit: bool = False,
) -> AsyncConnection[TupleRow]:
    """A connection to a database of a branch: by default the default branch's, with its only database and role.

    One call for the connection string, then attempts until the endpoint takes one, for `timeout` seconds at most (an
    attempt under way may overrun them by two). Another attempt follows when the server cannot be reached, or says that
    it starts or stops; and, while operations of the project are under way, when it does not know the role, its password
    or the database yet. All else, a wrong password or a disabled endpoint, fails at once.

    Raises ConfigurationError without psycopg, ConnectionFailed, DeadlineExceeded, and what `connection_string` raises.
    """
    psycopg = _psycopg()
    end = time.monotonic() + timeout
    uri = Secret(
        await neon.connection_string(
            project_id, branch=branch, endpoint=endpoint, database=database, role=role, pooled=pooled
        )
    )
    settled = False
    for pause in pauses():
        made = await _attempt(psycopg, uri, seconds=attempt_seconds(end - time.monotonic()), autocommit=autocommit)
        if not isinstance(made, Refusal):
            return made
        if made.outlook is Outlook.LASTING or (made.outlook is Outlook.UNSETTLED and settled):
            raise ConnectionFailed(f"no connection to Postgres: {made.said}", sent=True, hint=_HINT)
        if made.outlook is Outlook.UNSETTLED and not await _busy(neon, project_id):
            # What was under way may have ended after the attempt: one more.
            settled = True
            continue
        if time.monotonic() + pause > end:
            raise DeadlineExceeded(
                f"no connection within {timeout:g} s; the last attempt ended with: {made.said}; if the endpoint is "
                "suspended, and this server does not wake it, start it: neon.endpoints.start(...)"
            )
        await anyio.sleep(pause)
    raise AssertionError("pauses have no end")


async def _busy(neon: AsyncNeon, project_id: str) -> bool:
    """Whether operations of the project are under way; not if that cannot be told."""
    try:
        page = await neon.operations.list(project_id, limit=100).page()
    except APIError:
        return False
    return any(each.status not in DONE | FAILED for each in page.items)


async def _attempt(psycopg: Any, uri: Secret, *, seconds: int, autocommit: bool) -> AsyncConnection[TupleRow] | Refusal:
    try:
        made: AsyncConnection[TupleRow] = await psycopg.AsyncConnection.connect(
            uri.reveal(), connect_timeout=seconds, autocommit=autocommit, **unmoved(uri)
        )
    except psycopg.ProgrammingError:
        return refusal("", uri=uri, readable=False)
    except psycopg.Error as error:
        return refusal(str(error), uri=uri)
    except BaseException as error:  # noqa: BLE001 - it is raised again
        # A cancellation: the frames of psycopg that it went through know the password.
        raise error.with_traceback(None)  # noqa: B904 - it is the same
    return made


def _psycopg() -> Any:
    try:
        import psycopg  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise ConfigurationError(
            f"neon.connect needs psycopg, which cannot be imported ({error}): pip install 'lamplighter[psycopg]'"
        ) from None
    return psycopg
