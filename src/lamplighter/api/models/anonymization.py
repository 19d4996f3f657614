"""Branches whose data is masked."""

from lamplighter.api.models.annotations import AnnotationCreateValueRequest
from lamplighter.api.models.base import Given, Id, Maybe, Model, Timestamp, Uuid
from lamplighter.api.models.branches import BranchCreateRequest


class MaskingRule(Model):
    """How one column is masked: by a function or by a fixed value."""

    database_name: str
    schema_name: str
    table_name: str
    column_name: str
    masking_function: Maybe[str] = None
    masking_value: Maybe[str] = None


class MaskingRulesResponse(Model):
    """The masking rules of a branch."""

    masking_rules: list[MaskingRule]


class MaskingRulesUpdateRequest(Model):
    """The masking rules that a branch is to have."""

    masking_rules: list[MaskingRule]


class BranchAnonymizedCreateRequest(AnnotationCreateValueRequest):
    """A branch to make with masked data."""

    branch_create: Maybe[BranchCreateRequest] = None
    masking_rules: Maybe[list[MaskingRule]] = None
    start_anonymization: Maybe[bool] = None


class AnonymizationRunMetadata(Model):
    """A run that masked data."""

    started_at: Maybe[Timestamp] = None
    completed_at: Maybe[Timestamp] = None
    triggered_by: Maybe[Given[Uuid]] = None
    triggered_by_username: Maybe[str] = None
    masked_columns: Maybe[int] = None


class AnonymizedBranchStatusResponse(Model):
    """How far the masking of a branch is."""

    project_id: Given[Id]
    branch_id: Given[Id]
    state: str
    status_message: Maybe[str] = None
    created_at: Timestamp
    updated_at: Timestamp
    failed_at: Maybe[Timestamp] = None
    last_run: Maybe[AnonymizationRunMetadata] = None
