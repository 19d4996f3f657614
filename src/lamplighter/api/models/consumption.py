"""What projects and branches used, by period and by hour, day or month."""

from typing import Annotated

from lamplighter.api.models.base import Count, Given, Id, Maybe, Model, OneOf, Timestamp, Uuid
from lamplighter.api.models.common import PaginationResponse

ConsumptionHistoryGranularity = Annotated[str, OneOf("hourly", "daily", "monthly")]

#: Names of metrics.
ConsumptionHistoryQueryMetrics = list[str]


class ConsumptionHistoryPerTimeframe(Model):
    """What was used in one hour, day or month."""

    timeframe_start: Timestamp
    timeframe_end: Timestamp
    active_time_seconds: Count
    compute_time_seconds: Count
    written_data_bytes: Count
    synthetic_storage_size_bytes: Count
    data_storage_bytes_hour: Maybe[Count] = None
    logical_size_bytes: Maybe[Count] = None
    logical_size_bytes_hour: Maybe[Count] = None


class ConsumptionHistoryPerPeriod(Model):
    """What was used in one billing period."""

    period_id: Given[Uuid]
    period_plan: str
    period_start: Timestamp
    period_end: Maybe[Timestamp] = None
    consumption: list[ConsumptionHistoryPerTimeframe]


class ConsumptionHistoryPerProject(Model):
    """What one project used."""

    project_id: Given[Id]
    periods: list[ConsumptionHistoryPerPeriod]


class ConsumptionHistoryPerProjectResponse(Model):
    """What projects used."""

    projects: list[ConsumptionHistoryPerProject]


class ProjectConsumptionPage(ConsumptionHistoryPerProjectResponse, PaginationResponse):
    """A page of what projects used."""


class ConsumptionMetricValue(Model):
    """A metric and its value."""

    metric_name: str
    value: int


class ConsumptionHistoryPerTimeframeV2(Model):
    """What was used in one hour, day or month, metric by metric."""

    timeframe_start: Maybe[Timestamp] = None
    timeframe_end: Maybe[Timestamp] = None
    metrics: Maybe[list[ConsumptionMetricValue]] = None


class ConsumptionHistoryPerPeriodV2(Model):
    """What was used in one billing period, metric by metric."""

    period_id: Given[Uuid]
    period_plan: str
    period_start: Timestamp
    period_end: Maybe[Timestamp] = None
    consumption: list[ConsumptionHistoryPerTimeframeV2]


class ConsumptionHistoryPerProjectV2(Model):
    """What one project used, metric by metric."""

    project_id: Given[Id]
    periods: list[ConsumptionHistoryPerPeriodV2]


class ConsumptionHistoryPerProjectV2Response(Model):
    """What projects used, metric by metric."""

    projects: list[ConsumptionHistoryPerProjectV2]


class ProjectConsumptionV2Page(ConsumptionHistoryPerProjectV2Response, PaginationResponse):
    """A page of what projects used, metric by metric."""


class ConsumptionHistoryPerBranchV2(Model):
    """What one branch used, metric by metric."""

    project_id: Given[Id]
    branch_id: Given[Id]
    periods: list[ConsumptionHistoryPerPeriodV2]


class ConsumptionHistoryPerBranchV2Response(Model):
    """What branches used, metric by metric."""

    branches: list[ConsumptionHistoryPerBranchV2]


class BranchConsumptionV2Page(ConsumptionHistoryPerBranchV2Response, PaginationResponse):
    """A page of what branches used, metric by metric."""
