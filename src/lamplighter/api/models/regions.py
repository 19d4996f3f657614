"""Regions that projects can live in."""

from lamplighter.api.models.base import Model


class RegionResponse(Model):
    """A region, with where it lies."""

    region_id: str
    name: str
    default: bool
    geo_lat: str
    geo_long: str


class ActiveRegionsResponse(Model):
    """The regions where a project can be made."""

    regions: list[RegionResponse]
