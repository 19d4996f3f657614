"""What a peer can do wrong on the wire, as one tree. Each error knows how Postgres would tell it.

WireError
├── Malformed          bytes that are not what the protocol says
├── TooLarge           more bytes than a message of its kind may have
├── LoginRefused       well-formed, but not acceptable: a channel binding that does not hold, an unknown extension
│   ├── PasswordFailed the proof does not belong to the role's password, or there is no such role
│   └── TooManyIterations  a login that would cost us too much (`iterations`, `limit`)
└── ServerUnproven     the server we log in to does not know the password
"""

from __future__ import annotations


class WireError(Exception):
    """A peer said what cannot be gone on with."""

    #: SQLSTATE to tell the peer, unless the error has its own.
    code = "08P01"

    def __init__(self, message: str | None = None, *, detail: str | None = None, code: str | None = None) -> None:
        """`message` and `detail` are fit for the peer's eyes: no secret, no bytes of it."""
        self.message = message or (type(self).__doc__ or "").strip().partition("\n")[0]
        self.detail = detail
        self.code = code or type(self).code
        super().__init__(f"{self.message}: {detail}" if detail else self.message)


class Malformed(WireError):
    """The peer does not speak PostgreSQL's protocol 3."""


class TooLarge(WireError):
    """A message is longer than it may be here."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        super().__init__(f"message is too long: at most {limit} bytes are taken here")


class LoginRefused(WireError):
    """The peer's login cannot be accepted."""

    code = "28000"


class PasswordFailed(LoginRefused):
    """Password authentication failed."""

    code = "28P01"

    def __init__(self, user: str) -> None:
        self.user = user
        super().__init__(f'password authentication failed for user "{user}"')


class TooManyIterations(LoginRefused):
    """The role's password asks for too many iterations of SCRAM."""

    def __init__(self, iterations: int, limit: int) -> None:
        self.iterations = iterations
        self.limit = limit
        super().__init__(
            f"the role's password asks for {iterations} iterations of SCRAM, and at most {limit} are done here: "
            "set scram_iterations lower and the password anew"
        )


class ServerUnproven(WireError):
    """The database server could not prove that it knows the password."""

    code = "08006"
