"""The parts that replies of many resources share: errors, pages, and the empty reply."""

from typing import Annotated

from pydantic import Field

from lamplighter.api.models.base import Given, Maybe, Model


class GeneralError(Model):
    """What every error answer says."""

    request_id: Maybe[str] = None
    code: str
    message: str


class EmptyResponse(Model):
    """An answer that says no more than its status."""


class Pagination(Model):
    """Where the next page starts: pass `cursor` on to get it."""

    cursor: Given[Annotated[str, Field(min_length=1)]]


class PaginationResponse(Model):
    """A list that may go on; the last page of an empty list has no `pagination`."""

    pagination: Maybe[Pagination] = None


class CursorPagination(Model):
    """Where the next page starts (`next`), and how the list is sorted."""

    next: Maybe[str] = None
    sort_by: Maybe[str] = None
    sort_order: Maybe[str] = None


class CursorPaginationResponse(Model):
    """A sorted list that may go on."""

    pagination: Maybe[CursorPagination] = None
