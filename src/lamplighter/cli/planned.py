"""The end of a dry run: the request that would have changed something."""

from __future__ import annotations


class Planned(BaseException):
    """Raised in the place of sending. No `Exception`: nothing between may take it for a failure, and try again."""

    def __init__(self, method: str, url: str, body: bytes, content_type: str) -> None:
        super().__init__(f"{method} {url}")
        self.method = method
        self.url = url
        self.body = body
        self.content_type = content_type
