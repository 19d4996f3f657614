"""A connection string that a test report does not show: pytest prints the values of arguments and locals."""

from __future__ import annotations

import re

_PASSWORD = re.compile(r"(?<=://)([^:@/?#]*):[^@/?#]*@")
_PARAMETER = re.compile(r"([?&]password=)[^&#]*", re.IGNORECASE)


class Dsn(str):
    """A `str` in all ways, but for its `repr`, which has `***` in the place of the password."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(_PARAMETER.sub(r"\1***", _PASSWORD.sub(r"\1:***@", str.__str__(self))))
