"""What projects and branches used."""

from typing import Annotated

from pydantic import Field

from lamplighter.api.models.base import Id, Timestamp
from lamplighter.api.models.consumption import (
    BranchConsumptionV2Page,
    ConsumptionHistoryGranularity,
    ConsumptionHistoryQueryMetrics,
    ProjectConsumptionPage,
    ProjectConsumptionV2Page,
)
from lamplighter.api.table.entry import CURSOR, UNSCOPED, Operation, Rows, limit, query

consumption = Rows("Consumption")

#: Each text may itself hold up to a hundred ids between commas.
_Ids = list[Annotated[str, Field(pattern=r"^([a-z0-9-]{1,60}(,[a-z0-9-]{1,60}){0,99})?$")]]

OPERATIONS: tuple[Operation, ...] = (
    consumption.get(
        "getConsumptionHistoryPerProject",
        "/consumption_history/projects",
        CURSOR,
        limit(100, default=10),
        query("project_ids", Annotated[_Ids, Field(max_length=100)]),
        query("from", Timestamp, required=True),
        query("to", Timestamp, required=True),
        query("granularity", ConsumptionHistoryGranularity, required=True),
        query("org_id", Id),
        query("include_v1_metrics", bool),
        query("metrics", ConsumptionHistoryQueryMetrics),
        reply=ProjectConsumptionPage,
        callers=UNSCOPED,
    ),
    consumption.get(
        "getConsumptionHistoryPerBranchV2",
        "/consumption_history/v2/branches",
        CURSOR,
        limit(1000, default=100),
        query("project_ids", Annotated[_Ids, Field(min_length=1, max_length=100)], required=True),
        query("branch_ids", Annotated[_Ids, Field(max_length=100)]),
        query("from", Timestamp, required=True),
        query("to", Timestamp, required=True),
        query("granularity", ConsumptionHistoryGranularity, required=True),
        query("org_id", Id, required=True),
        query("metrics", ConsumptionHistoryQueryMetrics, required=True),
        reply=BranchConsumptionV2Page,
        callers=UNSCOPED,
    ),
    consumption.get(
        "getConsumptionHistoryPerProjectV2",
        "/consumption_history/v2/projects",
        CURSOR,
        limit(100, default=10),
        query("project_ids", Annotated[_Ids, Field(max_length=100)]),
        query("from", Timestamp, required=True),
        query("to", Timestamp, required=True),
        query("granularity", ConsumptionHistoryGranularity, required=True),
        query("org_id", Id, required=True),
        query("metrics", ConsumptionHistoryQueryMetrics, required=True),
        reply=ProjectConsumptionV2Page,
        callers=UNSCOPED,
    ),
)
