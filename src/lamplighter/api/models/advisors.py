"""Findings of the security and performance advisors."""

from typing import Annotated, Any

from lamplighter.api.models.base import Model, OneOf

AdvisorCategory = Annotated[str, OneOf("SECURITY", "PERFORMANCE")]


class AdvisorIssue(Model):
    """One finding: what is wrong, where, and what to do."""

    name: str
    title: str
    level: str
    facing: Annotated[str, OneOf("EXTERNAL", "INTERNAL")]
    categories: list[AdvisorCategory]
    description: str
    detail: str
    remediation: str
    metadata: dict[str, Any]
    cache_key: str


class AdvisorIssuesResponse(Model):
    """The findings for a project."""

    issues: list[AdvisorIssue]
