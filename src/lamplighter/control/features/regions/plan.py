"""The region ids that Neon's clients know (contract section 3.2). Pure."""

from __future__ import annotations

from lamplighter.api.errors import BadRequest

#: Region id: the place's name, latitude and longitude.
REGIONS: dict[str, tuple[str, str, str]] = {
    "aws-us-east-1": ("N. Virginia", "38.13", "-78.45"),
    "aws-us-east-2": ("Ohio", "39.96", "-83.00"),
    "aws-us-west-2": ("Oregon", "46.15", "-123.88"),
    "aws-eu-central-1": ("Frankfurt", "50.11", "8.68"),
    "aws-ap-southeast-1": ("Singapore", "1.37", "103.80"),
    "aws-ap-southeast-2": ("Sydney", "-33.86", "151.20"),
    "azure-eastus2": ("Virginia", "36.66", "-78.38"),
}


def check_region(region_id: str) -> str:
    """The id again. Raises BadRequest for one that no client could have chosen."""
    if region_id not in REGIONS:
        raise BadRequest(f"unknown region {region_id!r}; GET /regions lists those there are")
    return region_id
