"""That programs which look for Neon's sentences find them."""

from __future__ import annotations

import pytest

from lamplighter.gateway.wire import messages, texts
from lamplighter.gateway.wire.messages import Frames


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (texts.NO_ENDPOINT, "Endpoint ID is not specified"),
        (texts.NO_ENDPOINT, "'?options=endpoint%3D<endpoint-id>'. See more at https://neon.tech/sni"),
        (texts.ENDPOINT_NOT_FOUND, "The requested endpoint could not be found, or you don't have access to it"),
        (texts.DISABLED, "The endpoint has been disabled. Enable it"),
        (texts.ip_not_allowed("::1"), "This IP address ::1 is not allowed to connect to this endpoint"),
    ],
)
def test_neons_sentence_reaches_the_client(text, part):
    (told,) = Frames().feed(messages.error_response("FATAL", texts.INTERNAL_ERROR, text))
    assert part in messages.parse_error(told.body)["message"]
    assert "  " not in text
