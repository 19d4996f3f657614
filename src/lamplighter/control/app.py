"""The control plane put together: from a kernel to routes and recipes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lamplighter.control.features.api_keys import routes as api_key_routes
from lamplighter.control.features.api_keys.service import ApiKeys
from lamplighter.control.features.branches import routes as branch_routes
from lamplighter.control.features.branches.service import Branches
from lamplighter.control.features.branches.steps import BranchSteps
from lamplighter.control.features.databases import routes as database_routes
from lamplighter.control.features.databases.service import Databases
from lamplighter.control.features.endpoints import routes as endpoint_routes
from lamplighter.control.features.endpoints.connection import ConnectionStrings
from lamplighter.control.features.endpoints.doors import Doors
from lamplighter.control.features.endpoints.idle import Idle
from lamplighter.control.features.endpoints.service import Endpoints
from lamplighter.control.features.endpoints.steps import EndpointSteps
from lamplighter.control.features.operations import routes as operation_routes
from lamplighter.control.features.organizations import routes as organization_routes
from lamplighter.control.features.organizations.service import Organizations
from lamplighter.control.features.projects import routes as project_routes
from lamplighter.control.features.projects.service import Projects
from lamplighter.control.features.projects.steps import ProjectSteps
from lamplighter.control.features.regions import routes as region_routes
from lamplighter.control.features.roles import routes as role_routes
from lamplighter.control.features.roles.service import Roles
from lamplighter.control.features.users import routes as user_routes
from lamplighter.control.features.users.service import Users
from lamplighter.control.http.auth import KeyUsage
from lamplighter.control.http.calls import Routes
from lamplighter.control.kernel import Kernel
from lamplighter.control.operations.engine import Recipe


@dataclass(frozen=True, slots=True)
class Control:
    """All services of one control plane, what they answer to, and what the engine runs for them."""

    kernel: Kernel
    usage: KeyUsage
    users: Users
    organizations: Organizations
    api_keys: ApiKeys
    projects: Projects
    branches: Branches
    endpoints: Endpoints
    doors: Doors
    idle: Idle
    strings: ConnectionStrings
    routes: Routes
    recipes: Mapping[str, Recipe]


def build(kernel: Kernel) -> Control:
    """Wire the features together. Nothing is started or connected."""
    usage = KeyUsage(kernel.catalog)
    users, organizations, api_keys = Users(kernel), Organizations(kernel), ApiKeys(kernel, usage)
    doors = Doors(kernel)
    roles, databases, endpoints = Roles(kernel), Databases(kernel), Endpoints(kernel, doors)
    branches = Branches(kernel, endpoints=endpoints, roles=roles, databases=databases)
    projects = Projects(kernel, branches=branches, endpoints=endpoints, roles=roles, databases=databases)
    strings = ConnectionStrings(kernel, roles=roles, databases=databases)
    endpoint_steps = EndpointSteps(kernel, doors=doors, roles=roles, databases=databases)
    branch_steps = BranchSteps(kernel, endpoints=endpoint_steps, roles=roles, databases=databases)
    routes: Routes = {
        **user_routes.routes(users),
        **organization_routes.routes(organizations),
        **api_key_routes.routes(api_keys),
        **region_routes.routes(kernel.place),
        **project_routes.routes(kernel, projects, strings),
        **branch_routes.routes(kernel, branches, strings),
        **endpoint_routes.routes(endpoints, kernel.place),
        **database_routes.routes(kernel, databases),
        **role_routes.routes(kernel, roles),
        **operation_routes.routes(kernel),
    }
    return Control(
        kernel=kernel,
        usage=usage,
        users=users,
        organizations=organizations,
        api_keys=api_keys,
        projects=projects,
        branches=branches,
        endpoints=endpoints,
        doors=doors,
        idle=Idle(kernel, endpoints=endpoints, doors=doors),
        strings=strings,
        routes=routes,
        recipes={
            **ProjectSteps(kernel, branches=branch_steps, endpoints=endpoint_steps).recipes(),
            **branch_steps.recipes(),
            **endpoint_steps.recipes(),
        },
    )
