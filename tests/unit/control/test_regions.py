"""The regions that clients may name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamplighter.api.errors import BadRequest
from lamplighter.api.models.regions import ActiveRegionsResponse
from lamplighter.control.features.regions import routes
from lamplighter.control.features.regions.plan import REGIONS, check_region
from lamplighter.control.http.calls import Call, to_wire
from lamplighter.control.kernel import Place

#: The handler looks at nothing of the request.
ANY_CALL = Call(caller=None, path={}, query={}, body=None, request_id="")  # type: ignore[arg-type]


@given(st.one_of(st.sampled_from(sorted(REGIONS)), st.text(max_size=30)))
def test_a_region_is_known_or_a_bad_request(region_id):
    if region_id in REGIONS:
        assert check_region(region_id) == region_id
    else:
        with pytest.raises(BadRequest, match="GET /regions"):
            check_region(region_id)


@pytest.mark.parametrize("here", sorted(REGIONS))
async def test_all_regions_are_listed_and_one_is_the_default(here):
    reply = await routes.routes(Place(region_id=here))["getActiveRegions"](ANY_CALL)
    listed = ActiveRegionsResponse.model_validate(to_wire(reply.content)).regions
    assert [one.region_id for one in listed] == list(REGIONS)
    assert [one.region_id for one in listed if one.default] == [here]


def test_the_default_of_a_platform_is_a_region():
    assert check_region(Place().region_id) == Place().region_id


@pytest.mark.parametrize("region_id", sorted(REGIONS))
def test_every_place_is_on_this_planet(region_id):
    _name, latitude, longitude = REGIONS[region_id]
    assert -90 <= float(latitude) <= 90
    assert -180 <= float(longitude) <= 180
