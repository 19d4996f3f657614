"""Endpoints in names of hosts: `<endpoint id>.<domain>`, and `<endpoint id>-pooler.<domain>` by way of the pooler."""

from __future__ import annotations

import re

POOLER = "-pooler"
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)


def label_of(host: str | None, domain: str | None) -> tuple[str, bool] | None:
    """Endpoint id, and whether by way of the pooler. None for a host that is not right below the domain.

    Upper and lower case are alike; a dot at the end means nothing. An endpoint's id is one label of the name.
    """
    if not host or not domain:
        return None
    plain, suffix = _plain(host), "." + _plain(domain)
    label = plain.removesuffix(suffix)
    if label == plain or not _LABEL.fullmatch(label):
        return None
    return split_pooler(label)


def split_pooler(label: str) -> tuple[str, bool]:
    """Of an endpoint's name in `options`, a password or a host: its id, and whether by way of the pooler."""
    endpoint_id = label.removesuffix(POOLER)
    return (endpoint_id, True) if endpoint_id and endpoint_id != label else (label, False)


def _plain(name: str) -> str:
    return name.lower().removesuffix(".")
