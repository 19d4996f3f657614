"""Services beside Postgres: the Data API, storage, functions, credentials, the AI gateway."""

from typing import Annotated

from pydantic import Field

from lamplighter.api.models.ai_gateway import BranchAiGateway, BranchAiGatewayNotEnabled
from lamplighter.api.models.buckets import (
    BranchStorage,
    BranchStorageNotEnabled,
    BucketCreateRequest,
    BucketObjectsDeletePrefixResponse,
    BucketObjectsListResponse,
    BucketResponse,
    BucketsListResponse,
    PresignRequest,
    PresignResponse,
)
from lamplighter.api.models.common import EmptyResponse
from lamplighter.api.models.credentials import (
    CreateCredentialRequest,
    CreateCredentialResponse,
    ListCredentialsResponse,
)
from lamplighter.api.models.data_api import (
    DataAPICreateRequest,
    DataAPICreateResponse,
    DataAPIResponse,
    DataAPIUpdateRequest,
)
from lamplighter.api.models.functions import (
    FunctionDeployRequest,
    NeonFunctionDeploymentResponse,
    NeonFunctionResponse,
    NeonFunctionsPage,
    NeonFunctionUpdateRequest,
)
from lamplighter.api.table.entry import BRANCH, CURSOR, Operation, Rows, limit, query

data_api = Rows("DataAPI")
buckets = Rows("Buckets")
storage = Rows("Storage")
functions = Rows("Functions")
credentials = Rows("Credentials")
ai_gateway = Rows("AI Gateway")

OPERATIONS: tuple[Operation, ...] = (
    data_api.delete("deleteProjectBranchDataAPI", BRANCH + "/data-api/{database_name}", reply=EmptyResponse),
    data_api.get("getProjectBranchDataAPI", BRANCH + "/data-api/{database_name}", reply=DataAPIResponse),
    data_api.patch(
        "updateProjectBranchDataAPI",
        BRANCH + "/data-api/{database_name}",
        body=DataAPIUpdateRequest,
        reply=EmptyResponse,
        status=201,
    ),
    data_api.post(
        "createProjectBranchDataAPI",
        BRANCH + "/data-api/{database_name}",
        body=DataAPICreateRequest,
        reply=DataAPICreateResponse,
        status=201,
    ),
    buckets.get("listProjectBranchBuckets", BRANCH + "/buckets", reply=BucketsListResponse),
    buckets.post(
        "createProjectBranchBucket",
        BRANCH + "/buckets",
        body=BucketCreateRequest,
        body_required=True,
        reply=BucketResponse,
        status=201,
    ),
    buckets.delete("deleteProjectBranchBucket", BRANCH + "/buckets/{bucket_name}", status=204),
    buckets.get(
        "listProjectBranchBucketObjects",
        BRANCH + "/buckets/{bucket_name}/objects",
        query("prefix", str),
        query("delimiter", str),
        CURSOR,
        limit(1000, default=1000),
        reply=BucketObjectsListResponse,
    ),
    buckets.delete(
        "deleteProjectBranchBucketObjectsByPrefix",
        BRANCH + "/buckets/{bucket_name}/objects-by-prefix",
        query("prefix", Annotated[str, Field(min_length=1, max_length=1024)], required=True),
        reply=BucketObjectsDeletePrefixResponse,
    ),
    buckets.delete(
        "deleteProjectBranchBucketObject", BRANCH + "/buckets/{bucket_name}/objects/{object_key}", status=204
    ),
    buckets.get(
        "getProjectBranchBucketObject",
        BRANCH + "/buckets/{bucket_name}/objects/{object_key}/download",
        reply_media="application/octet-stream",
    ),
    buckets.post(
        "presignProjectBranchBucketObject",
        BRANCH + "/buckets/{bucket_name}/objects/{object_key}/presign",
        body=PresignRequest,
        body_required=True,
        reply=PresignResponse,
    ),
    storage.get(
        "getProjectBranchStorage", BRANCH + "/storage", reply=BranchStorage, refusals={404: BranchStorageNotEnabled}
    ),
    functions.get("listProjectBranchFunctions", BRANCH + "/functions", CURSOR, limit(1000), reply=NeonFunctionsPage),
    functions.delete("deleteProjectBranchFunction", BRANCH + "/functions/{slug}", status=204),
    functions.get("getProjectBranchFunction", BRANCH + "/functions/{slug}", reply=NeonFunctionResponse),
    functions.patch(
        "updateProjectBranchFunction",
        BRANCH + "/functions/{slug}",
        body=NeonFunctionUpdateRequest,
        body_required=True,
        reply=NeonFunctionResponse,
    ),
    functions.post(
        "createProjectBranchFunctionDeployment",
        BRANCH + "/functions/{slug}/deployments",
        body=FunctionDeployRequest,
        body_media="multipart/form-data",
        body_required=True,
        reply=NeonFunctionDeploymentResponse,
        status=201,
    ),
    credentials.get("listCredentials", BRANCH + "/credentials", reply=ListCredentialsResponse),
    credentials.post(
        "createCredential",
        BRANCH + "/credentials",
        body=CreateCredentialRequest,
        body_required=True,
        reply=CreateCredentialResponse,
        status=201,
    ),
    credentials.delete("revokeCredential", BRANCH + "/credentials/{token_id}", status=204),
    ai_gateway.get(
        "getProjectBranchAiGateway",
        BRANCH + "/ai_gateway",
        reply=BranchAiGateway,
        refusals={404: BranchAiGatewayNotEnabled},
    ),
)
