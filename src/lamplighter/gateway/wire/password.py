"""The endpoint in front of a password: how clients without SNI and `options` tell where they want to go.

`endpoint=ep-x;password` and `endpoint=ep-x$password`, and `project=` of old, as Neon takes them.
"""

from __future__ import annotations

import re

from lamplighter.gateway.wire.startup import endpoint_of_word

# An endpoint's id has neither separator, so the first of either ends it; the password may have any number of both.
_PREFIXED = re.compile(rb"((?:endpoint|project)=[^;$]*)[;$](.*)", re.DOTALL)


def split_endpoint(password: bytes) -> tuple[str | None, bytes]:
    """The endpoint, None if the password has none in front, and the password proper.

    The endpoint is whatever stands there, even nothing: whoever looks it up finds out.
    """
    match = _PREFIXED.fullmatch(password)
    if match is None:
        return None, password
    try:
        word = match[1].decode()
    except UnicodeDecodeError:
        return None, password
    return endpoint_of_word(word), match[2]
