"""Private network endpoints of organizations and projects."""

from lamplighter.api.models.base import Model


class VPCEndpoint(Model):
    """A private network endpoint."""

    vpc_endpoint_id: str
    label: str


class VPCEndpointAssignment(Model):
    """What to call the endpoint."""

    label: str


class VPCEndpointDetails(Model):
    """A private network endpoint, with its state and some of the projects that allow only it."""

    vpc_endpoint_id: str
    label: str
    state: str
    num_restricted_projects: int
    example_restricted_projects: list[str]


class VPCEndpointWithRegion(VPCEndpoint):
    """A private network endpoint and its region."""

    region_id: str


class VPCEndpointsResponse(Model):
    """Private network endpoints."""

    endpoints: list[VPCEndpoint]


class VPCEndpointsWithRegionResponse(Model):
    """Private network endpoints of all regions."""

    endpoints: list[VPCEndpointWithRegion]
