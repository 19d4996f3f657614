"""Object storage of a branch."""

from typing import Annotated

from pydantic import Field

from lamplighter.api.models.base import Hidden, Int64, Maybe, Model, OneOf, Timestamp, Uri


class BranchStorage(Model):
    """Where the object storage of a branch is reached."""

    enabled: bool
    s3_endpoint: Uri
    region: str
    force_path_style: bool


class BranchStorageNotEnabled(Model):
    """Why a branch has no object storage."""

    code: str
    message: str
    reason: Annotated[
        str, OneOf("org_not_entitled", "region_unavailable", "branch_directory_missing", "branch_not_found")
    ]


BucketAccessLevel = Annotated[str, OneOf("private", "public_read")]


class Bucket(Model):
    """A bucket of objects."""

    name: str
    access_level: BucketAccessLevel
    created_at: Timestamp


class BucketCreateRequest(Model):
    """A bucket to make."""

    name: Annotated[str, Field(min_length=1, max_length=255)]
    access_level: BucketAccessLevel = "private"


class BucketResponse(Model):
    """One bucket."""

    bucket: Bucket


class BucketsListResponse(Model):
    """Buckets of a branch."""

    buckets: list[Bucket]


class BucketObject(Model):
    """An object in a bucket."""

    key: str
    size: Int64
    last_modified: Timestamp
    etag: str


class BucketObjectsListResponse(Model):
    """A page of a bucket's objects, with folders where a delimiter was given."""

    folders: list[str]
    objects: list[BucketObject]
    prefix: str
    next_cursor: Maybe[str] = None
    is_truncated: bool


class BucketObjectsDeletePrefixResponse(Model):
    """How many objects were deleted."""

    deleted: Int64


class PresignRequest(Model):
    """What the signed URL is to be good for, and for how long."""

    operation: Annotated[str, OneOf("upload", "download")]
    content_type: Maybe[str] = None
    expires_in_seconds: Annotated[Int64, Field(ge=1, le=604800)] = 900


class PresignResponse(Model):
    """A URL that works without credentials until it expires."""

    url: Hidden[str]
    method: str
    headers: Hidden[dict[str, str]]
    expires_at: Timestamp
