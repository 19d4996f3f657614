"""What a user might write with `AsyncNeon`. Read by mypy, never run: `# is T` is what it reveals."""

from typing import reveal_type
from uuid import UUID

from lamplighter import AsyncNeon, OperationFailed


async def main() -> None:
    async with AsyncNeon(context="local", deadline=20) as neon:
        reveal_type(neon)  # is AsyncNeon
        reveal_type(await neon.projects.get("p"))  # is Project
        reveal_type(neon.projects.list())  # is Pager[ProjectListItem]
        reveal_type(await neon.projects.list().page())  # is Page[ProjectListItem]
        reveal_type(await neon.branches.list("p").all())  # is list[Branch]
        async for branch in neon.branches.list("p", sort_by="name"):
            reveal_type(branch)  # is Branch
        async for page in neon.operations.list("p").pages():
            reveal_type(page.items)  # is list[Operation]

        try:
            reveal_type(await neon.endpoints.start("p", "e", wait=10.5))  # is EndpointOperations
        except OperationFailed as error:
            reveal_type(error.operation)  # is Operation
        await neon.organizations.remove_member("o", UUID(int=1))
        reveal_type(await neon.users.me())  # is CurrentUserInfoResponse
        reveal_type(await neon.branches.schema("p", "b", database_name="d", at="0/1A2B3C4"))  # is BranchSchemaResponse
        reveal_type(await neon.functions.deploy("p", "b", "f", archive=b"PK"))  # is NeonFunctionDeployment
        reveal_type(await neon.data_api.create("p", "b", "d"))  # is str

        reveal_type(await neon.projects.with_raw_response.get("p"))  # is RawResponse[Project]
        reveal_type(await neon.branches.with_raw_response.list("p"))  # is RawResponse[Page[Branch]]

        str(neon.projects.get("p").name)  # error: attr-defined
        for _ in neon.branches.list("p"):  # error: attr-defined
            pass
        await neon.transfers.create("p", ttl="a day")  # error: call-arg
