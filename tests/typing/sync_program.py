"""What a user might write with `Neon`. Read by mypy, never run: `# is T` is what it reveals, `# error: code` fails."""

from datetime import UTC, datetime
from typing import reveal_type

from lamplighter import OMIT, Neon, NeonError, NotFound, RateLimited, Server, Timeouts
from lamplighter.api.models.branches import BranchCreateRequestEndpointOptions
from lamplighter.api.models.settings import DefaultEndpointSettings

with Neon(api_key="key", base_url="http://127.0.0.1:8080", timeout=Timeouts(connect=5)) as neon:
    reveal_type(neon)  # is Neon
    reveal_type(neon.server)  # is Server
    server: Server = neon.server

    reveal_type(neon.projects.get("p"))  # is Project
    reveal_type(neon.projects.get("p").name)  # is str
    reveal_type(neon.projects.list(search="x", limit=100))  # is Pager[ProjectListItem]
    reveal_type(neon.projects.list().page())  # is Page[ProjectListItem]
    reveal_type(neon.projects.list().all())  # is list[ProjectListItem]
    for project in neon.projects.list():
        reveal_type(project)  # is ProjectListItem
    for page in neon.branches.list("p").pages():
        reveal_type(page.items)  # is list[Branch]
        reveal_type(page.next)  # is str | None

    made = neon.projects.create(name="x", pg_version=17, default_endpoint_settings={"suspend_timeout_seconds": 60})
    reveal_type(made)  # is ProjectCreated
    reveal_type(made.operations)  # is list[Operation]
    neon.projects.create(default_endpoint_settings=DefaultEndpointSettings(suspend_timeout_seconds=60), wait=30)
    reveal_type(neon.projects.connection_uri("p", database_name="d", role_name="r"))  # is str

    neon.branches.create(
        "p", name="b", parent="br", at=datetime.now(UTC), endpoints=[{"type": "read_write"}], wait=True
    )
    neon.branches.create("p", at="0/1A2B3C4", endpoints=[BranchCreateRequestEndpointOptions(type="read_only")])
    reveal_type(neon.branches.create("p"))  # is BranchCreated
    reveal_type(neon.branches.get("p", "b"))  # is Branch
    reveal_type(neon.branches.count("p"))  # is int
    reveal_type(neon.branches.delete("p", "b", wait=True))  # is BranchOperations | None
    neon.branches.update("p", "b", expires_at=None)
    neon.branches.update("p", "b", expires_at=OMIT)

    reveal_type(neon.roles.reveal_password("p", "b", "r"))  # is str
    reveal_type(neon.roles.reset_password("p", "b", "r").role.password)  # is str | None
    reveal_type(neon.api_keys.list())  # is Pager[ApiKeysListResponseItem]
    reveal_type(neon.api_keys.create(name="ci").key)  # is str
    reveal_type(neon.organizations.spending_limit("o"))  # is int | None
    reveal_type(neon.snapshots.schedule("p", "b"))  # is list[BackupScheduleItem]
    reveal_type(neon.buckets.download("p", "b", "bucket", "key"))  # is bytes
    reveal_type(neon.auth.email_provider("p", "b"))  # is StandardEmailServer | SharedEmailServer
    neon.endpoints.create("p", branch_id="b", type="a type that a newer server knows")

    reveal_type(neon.projects.with_raw_response.get("p"))  # is RawResponse[Project]
    reveal_type(neon.projects.with_raw_response.get("p").parse())  # is Project
    reveal_type(neon.projects.with_raw_response.list(limit=5).parse())  # is Page[ProjectListItem]
    reveal_type(neon.with_options(deadline=5.0))  # is Neon

    try:
        neon.operations.get("p", "o")
    except NotFound as error:
        reveal_type(error.status)  # is int
    except RateLimited as error:
        reveal_type(error.retry_after)  # is float | None
    except NeonError as error:
        reveal_type(error)  # is NeonError

    neon.projects.get()  # error: call-arg
    neon.projects.get("p", "q")  # error: call-arg
    neon.branches.create("p", nam="b")  # error: call-arg
    neon.branches.create("p", "b")  # error: call-arg
    neon.branches.create("p", protected="yes")  # error: arg-type
    neon.branches.restore("p", "b")  # error: call-arg
    neon.branches.list("p", sort_by="size")  # error: arg-type
    neon.projects.with_raw_response.get()  # error: call-arg
    neon.projectz.list()  # error: attr-defined
