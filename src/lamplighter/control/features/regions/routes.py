"""`/regions`: Neon's region names, all of which are this machine. Clients choose among the names they know."""

from __future__ import annotations

from lamplighter.control.features.regions.plan import REGIONS
from lamplighter.control.http.calls import Call, Reply, Routes
from lamplighter.control.kernel import Place


def routes(place: Place) -> Routes:
    async def list_regions(_call: Call) -> Reply:
        shown = [
            {
                "region_id": region_id,
                "name": f"This machine, as {name}",
                "default": region_id == place.region_id,
                "geo_lat": latitude,
                "geo_long": longitude,
            }
            for region_id, (name, latitude, longitude) in REGIONS.items()
        ]
        return Reply({"regions": shown})

    return {"getActiveRegions": list_regions}
