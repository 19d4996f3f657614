"""What the client calls each operation of the API: THE naming table.

Every operation of `lamplighter.api.operations` is here once, under its group (`neon.branches`) and method
(`.create`), with what the method's signature needs beyond the operation itself. `tools/generate_client.py` writes the
client from it; `lamp api` and the tests read it too.

Parameters and fields have Neon's names unless `renames` says otherwise. Pure data: it needs no model to be loaded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final

from lamplighter.client.naming import At, Call, Group, Paged

#: How a page tells where the next one starts: the place of the cursor in the reply.
CURSOR: Final = "pagination.cursor"
NEXT: Final = "pagination.next"


_AT = At("lsn", "timestamp")
_PARENT_AT = At("parent_lsn", "parent_timestamp")
_NEW_BRANCH = {"parent_id": "parent", "annotation_value": "annotation"}

_PROJECTS = Group(
    "projects",
    "Projects: each has its branches, settings and a major version of Postgres.",
    (
        Call(
            "listProjects",
            "list",
            "Lists the projects of the caller, or of the organization.",
            "A personal key has to say which organization (`org_id`). `recoverable=True` lists deleted projects that "
            "can still be brought back. `timeout` is in milliseconds: what could not be read in it is in "
            "`unavailable_project_ids` of the page's reply.",
            paged=Paged("projects", CURSOR),
        ),
        Call(
            "createProject",
            "create",
            "Creates a project with a branch, an endpoint, a role and a database.",
            "The reply has the role's password and connection strings.",
            flatten=("project",),
        ),
        Call(
            "listSharedProjects",
            "list_shared",
            "Lists the projects that others share with the caller.",
            paged=Paged("projects", CURSOR),
        ),
        Call("deleteProject", "delete", "Deletes a project and all that is in it.", unwrap="project"),
        Call("getProject", "get", "Reads one project.", unwrap="project"),
        Call("updateProject", "update", "Changes a project; what is left out stays.", flatten=("project",)),
        Call("recoverProject", "recover", "Brings a deleted project back, with its branches."),
        Call(
            "getAvailablePreloadLibraries",
            "preload_libraries",
            "Lists the libraries that Postgres can preload in the project.",
            paged=Paged("libraries"),
        ),
        Call(
            "getConnectionURI",
            "connection_uri",
            "Gives a connection string, password included.",
            "For the default branch and its read-write endpoint unless others are named.",
            unwrap="uri",
        ),
    ),
    mixin="ProjectExtras",
)

_BRANCHES = Group(
    "branches",
    "Branches of a project: copies of its data that share what has not changed.",
    (
        Call(
            "listProjectBranches",
            "list",
            "Lists the branches of a project.",
            paged=Paged("branches", NEXT),
        ),
        Call(
            "createProjectBranch",
            "create",
            "Creates a branch: of the default branch and as it is now, unless `parent` and `at` say otherwise.",
            "It has no endpoint unless `endpoints` asks for one, as in `[{'type': 'read_write'}]`.",
            renames=_NEW_BRANCH,
            flatten=("branch",),
            at=(_PARENT_AT,),
        ),
        Call("countProjectBranches", "count", "Counts the branches of a project.", unwrap="count"),
        Call("getProjectBranch", "get", "Reads one branch.", unwrap="branch"),
        Call(
            "updateProjectBranch",
            "update",
            "Renames, protects or unprotects a branch, or changes when it expires; what is left out stays.",
            "`expires_at=None` lets it live on.",
            flatten=("branch",),
        ),
        Call("deleteProjectBranch", "delete", "Deletes a branch with its endpoints, roles and databases."),
        Call("recoverProjectBranch", "recover", "Brings a deleted branch back."),
        Call(
            "restoreProjectBranch",
            "restore",
            "Gives a branch the data that `source` has, or had at a point in time; id, name and endpoints stay.",
            "A branch restored from itself needs `at` and `preserve_as`, the name that its data as it was is kept "
            "under.",
            renames={"source_branch_id": "source", "preserve_under_name": "preserve_as"},
            at=(At("source_lsn", "source_timestamp"),),
        ),
        Call(
            "finalizeRestoreBranch",
            "finalize_restore",
            "Puts a restored branch in the place of the branch it was restored for.",
            "`name` is what the replaced branch is called from then on.",
        ),
        Call("setDefaultProjectBranch", "set_default", "Makes a branch the default branch of its project."),
        Call("listProjectBranchEndpoints", "endpoints", "Lists the endpoints of one branch.", paged=Paged("endpoints")),
        Call(
            "getProjectBranchSchema",
            "schema",
            "Reads the schema of a database, now or at a point in time.",
            "`format='json'` gives it as data, otherwise it is SQL.",
            renames={"db_name": "database_name"},
            at=(_AT,),
        ),
        Call(
            "getProjectBranchSchemaComparison",
            "compare_schema",
            "Compares the schema of a database with what it is, or was, on another branch.",
            "`base` is the id of the other branch. The answer is a unified diff.",
            renames={"db_name": "database_name", "base_branch_id": "base"},
            at=(_AT, At("base_lsn", "base_timestamp", "base_at")),
            unwrap="diff",
        ),
    ),
    mixin="BranchExtras",
)

_ENDPOINTS = Group(
    "endpoints",
    "Compute endpoints: the Postgres that serves a branch.",
    (
        Call("listProjectEndpoints", "list", "Lists the endpoints of a project.", paged=Paged("endpoints")),
        Call("createProjectEndpoint", "create", "Creates an endpoint for a branch.", flatten=("endpoint",)),
        Call("getProjectEndpoint", "get", "Reads one endpoint.", unwrap="endpoint"),
        Call("updateProjectEndpoint", "update", "Changes an endpoint; what is left out stays.", flatten=("endpoint",)),
        Call("deleteProjectEndpoint", "delete", "Deletes an endpoint; connections to it break."),
        Call("startProjectEndpoint", "start", "Starts an endpoint."),
        Call(
            "suspendProjectEndpoint", "suspend", "Suspends an endpoint, until it is started or a connection wakes it."
        ),
        Call("restartProjectEndpoint", "restart", "Suspends an endpoint and starts it again."),
    ),
)

_DATABASES = Group(
    "databases",
    "Databases of a branch.",
    (
        Call("listProjectBranchDatabases", "list", "Lists the databases of a branch.", paged=Paged("databases")),
        Call("createProjectBranchDatabase", "create", "Creates a database that a role owns.", flatten=("database",)),
        Call("getProjectBranchDatabase", "get", "Reads one database.", unwrap="database"),
        Call(
            "updateProjectBranchDatabase",
            "update",
            "Gives a database another name or owner; what is left out stays.",
            flatten=("database",),
        ),
        Call("deleteProjectBranchDatabase", "delete", "Deletes a database."),
    ),
)

_ROLES = Group(
    "roles",
    "Postgres roles of a branch, and their passwords.",
    (
        Call("listProjectBranchRoles", "list", "Lists the roles of a branch, without passwords.", paged=Paged("roles")),
        Call(
            "createProjectBranchRole",
            "create",
            "Creates a role; its password is in the reply.",
            "With `no_login=True` it has none.",
            flatten=("role",),
        ),
        Call("getProjectBranchRole", "get", "Reads one role, without its password.", unwrap="role"),
        Call("deleteProjectBranchRole", "delete", "Deletes a role."),
        Call(
            "resetProjectBranchRolePassword",
            "reset_password",
            "Gives a role a new password, which is in the reply.",
        ),
        Call("getProjectBranchRolePassword", "reveal_password", "Gives the password of a role.", unwrap="password"),
    ),
)

_OPERATIONS = Group(
    "operations",
    "Operations: the work that a change started, and what became of it.",
    (
        Call(
            "listProjectOperations",
            "list",
            "Lists the operations of a project, newest first.",
            paged=Paged("operations", CURSOR),
        ),
        Call("getProjectOperation", "get", "Reads one operation.", unwrap="operation"),
    ),
    mixin="OperationExtras",
)

_API_KEYS = Group(
    "api_keys",
    "The caller's own API keys. Those of an organization are with `neon.organizations`.",
    (
        Call("listApiKeys", "list", "Lists the caller's API keys, but not the keys themselves.", paged=Paged(None)),
        Call(
            "createApiKey",
            "create",
            "Creates an API key; `key` of the reply is shown this once.",
            renames={"key_name": "name"},
        ),
        Call("revokeApiKey", "revoke", "Revokes an API key, at once and for good."),
    ),
)

_ORGANIZATIONS = Group(
    "organizations",
    "Organizations: their members, invitations, API keys and spending limit.",
    (
        Call("getOrganization", "get", "Reads one organization."),
        Call(
            "listOrgApiKeys",
            "api_keys",
            "Lists the organization's API keys, but not the keys themselves.",
            paged=Paged(None),
        ),
        Call(
            "createOrgApiKey",
            "create_api_key",
            "Creates an API key of the organization; `key` of the reply is shown this once.",
            "With `project_id` the key reaches that project alone.",
            renames={"key_name": "name"},
        ),
        Call("revokeOrgApiKey", "revoke_api_key", "Revokes an API key of the organization, at once and for good."),
        Call(
            "getOrganizationMembers",
            "members",
            "Lists the members of the organization.",
            paged=Paged("members", NEXT),
        ),
        Call("getOrganizationMember", "member", "Reads one member."),
        Call("updateOrganizationMember", "update_member", "Gives a member another role."),
        Call("removeOrganizationMember", "remove_member", "Takes a member out of the organization."),
        Call(
            "getOrganizationInvitations",
            "invitations",
            "Lists the invitations that were not taken up yet.",
            paged=Paged("invitations"),
        ),
        Call(
            "createOrganizationInvitations",
            "invite",
            "Invites people, each by `email` and with a `role`.",
            unwrap="invitations",
        ),
        Call(
            "getOrganizationSpendingLimit",
            "spending_limit",
            "Reads the most to spend in a month, in cents; None for no limit.",
            unwrap="spending_limit_cents",
        ),
        Call(
            "setOrganizationSpendingLimit",
            "set_spending_limit",
            "Sets the most to spend in a month, in cents.",
            renames={"spending_limit_cents": "cents"},
            unwrap="spending_limit_cents",
        ),
        Call("deleteOrganizationSpendingLimit", "remove_spending_limit", "Takes the spending limit off."),
        Call(
            "transferProjectsFromOrgToOrg",
            "transfer_projects",
            "Moves projects of this organization to another one.",
        ),
    ),
)

_USERS = Group(
    "users",
    "Who is calling, and where they belong.",
    (
        Call("getCurrentUserInfo", "me", "Reads who the caller is, with the limits of their plan."),
        Call(
            "getCurrentUserOrganizations",
            "organizations",
            "Lists the organizations of the caller.",
            paged=Paged("organizations"),
        ),
        Call("getAuthDetails", "auth_details", "Tells which account the key acts for, and what kind of key it is."),
        Call(
            "transferProjectsFromUserToOrg",
            "transfer_projects",
            "Moves personal projects to an organization.",
        ),
    ),
)

_REGIONS = Group(
    "regions",
    "Regions that projects can live in.",
    (Call("getActiveRegions", "list", "Lists the regions where a project can be created.", paged=Paged("regions")),),
)

_SNAPSHOTS = Group(
    "snapshots",
    "Snapshots of branches, and the schedule that takes them.",
    (
        Call("listSnapshots", "list", "Lists the snapshots of a project.", paged=Paged("snapshots")),
        Call(
            "createSnapshot",
            "create",
            "Takes a snapshot of a branch as it is now, or was `at` a point in time.",
            at=(_AT,),
            times=frozenset({"expires_at"}),
        ),
        Call("updateSnapshot", "update", "Renames a snapshot.", flatten=("snapshot",), unwrap="snapshot"),
        Call("deleteSnapshot", "delete", "Deletes a snapshot."),
        Call(
            "restoreSnapshot",
            "restore",
            "Creates a branch with the data of a snapshot.",
            "With `target_branch_id` it is to replace that branch: at once with `finalize_restore=True`, else when "
            "`neon.branches.finalize_restore` is called.",
            # The contract takes the name in the query as well; Neon's own clients send it in the body.
            left_out=frozenset({"name"}),
        ),
        Call("getSnapshotSchedule", "schedule", "Reads when snapshots of a branch are taken.", unwrap="schedule"),
        Call("setSnapshotSchedule", "set_schedule", "Sets when snapshots of a branch are taken."),
    ),
)

_PERIOD = {"from": "start", "to": "end"}
_PERIOD_NOTE = "What is `hourly` goes back 168 hours, `daily` 60 days, `monthly` a year."

_CONSUMPTION = Group(
    "consumption",
    "What projects and branches used.",
    (
        Call(
            "getConsumptionHistoryPerProject",
            "per_project",
            "Reads what each project used, on the older plans.",
            _PERIOD_NOTE,
            renames=_PERIOD,
            paged=Paged("projects", CURSOR),
        ),
        Call(
            "getConsumptionHistoryPerProjectV2",
            "per_project_v2",
            "Reads what each project used, metric by metric.",
            _PERIOD_NOTE,
            renames=_PERIOD,
            paged=Paged("projects", CURSOR),
        ),
        Call(
            "getConsumptionHistoryPerBranchV2",
            "per_branch_v2",
            "Reads what each branch used, metric by metric.",
            _PERIOD_NOTE,
            renames=_PERIOD,
            paged=Paged("branches", CURSOR),
        ),
    ),
)

_PERMISSIONS = Group(
    "permissions",
    "Whom a project is shared with.",
    (
        Call(
            "listProjectPermissions",
            "list",
            "Lists whom a project is shared with.",
            paged=Paged("project_permissions"),
        ),
        Call("grantPermissionToProject", "grant", "Shares a project with the owner of an email address."),
        Call("revokePermissionFromProject", "revoke", "Ends the sharing of a project."),
    ),
)

_TRANSFERS = Group(
    "transfers",
    "Offers of a project to whoever accepts it.",
    (
        Call(
            "createProjectTransferRequest",
            "create",
            "Offers a project; the reply's `id` is what the new owner accepts.",
            "The offer stands for `ttl_seconds`, a day unless said.",
        ),
        Call(
            "acceptProjectTransferRequest",
            "accept",
            "Takes a project that is offered, for the caller or an organization.",
        ),
    ),
)

_VPC = Group(
    "vpc",
    "Private network endpoints of organizations and projects.",
    (
        Call(
            "listOrganizationVPCEndpointsAllRegions",
            "list",
            "Lists the private network endpoints of an organization, in all regions.",
            paged=Paged("endpoints"),
        ),
        Call(
            "listOrganizationVPCEndpoints",
            "list_in_region",
            "Lists the private network endpoints of an organization in one region.",
            paged=Paged("endpoints"),
        ),
        Call("getOrganizationVPCEndpointDetails", "get", "Reads one private network endpoint of an organization."),
        Call(
            "assignOrganizationVPCEndpoint",
            "assign",
            "Gives an organization a private network endpoint, or the endpoint another label.",
        ),
        Call("deleteOrganizationVPCEndpoint", "delete", "Takes a private network endpoint from an organization."),
        Call(
            "listProjectVPCEndpoints",
            "list_for_project",
            "Lists the private network endpoints that a project is restricted to.",
            paged=Paged("endpoints"),
        ),
        Call(
            "assignProjectVPCEndpoint",
            "assign_to_project",
            "Restricts a project to a private network endpoint, or gives the restriction another label.",
        ),
        Call(
            "deleteProjectVPCEndpoint",
            "delete_from_project",
            "Takes a private network endpoint from those that a project is restricted to.",
        ),
    ),
)

_AUTH = Group(
    "auth",
    "Neon Auth of a branch: sign-in for an application's own users.",
    (
        Call("getNeonAuth", "get", "Reads how Neon Auth of a branch is set up."),
        Call("createNeonAuth", "enable", "Sets Neon Auth up on a branch; the reply has its keys."),
        Call(
            "disableNeonAuth",
            "disable",
            "Takes Neon Auth off a branch.",
            "Its tables stay, unless `delete_data=True`.",
        ),
        Call("updateNeonAuthConfig", "update_config", "Gives Neon Auth another name.", unwrap="name"),
        Call(
            "getNeonAuthAllowLocalhost",
            "localhost_allowed",
            "Tells whether applications on localhost may use Neon Auth.",
            unwrap="allow_localhost",
        ),
        Call(
            "updateNeonAuthAllowLocalhost",
            "allow_localhost",
            "Lets applications on localhost use Neon Auth, or no longer.",
            renames={"allow_localhost": "allow"},
            unwrap="allow_localhost",
        ),
        Call(
            "listBranchNeonAuthTrustedDomains",
            "domains",
            "Lists the domains that users may be sent back to.",
            paged=Paged("domains"),
        ),
        Call("addBranchNeonAuthTrustedDomain", "add_domain", "Lets users be sent back to a domain."),
        Call("deleteBranchNeonAuthTrustedDomain", "delete_domains", "No longer lets users be sent back to domains."),
        Call(
            "getNeonAuthEmailAndPasswordConfig",
            "email_and_password",
            "Reads how users sign in by email address and password.",
        ),
        Call(
            "updateNeonAuthEmailAndPasswordConfig",
            "update_email_and_password",
            "Changes how users sign in by email address and password; what is left out stays.",
        ),
        Call("getNeonAuthEmailProvider", "email_provider", "Reads which SMTP server sends the messages."),
        Call(
            "updateNeonAuthEmailProvider",
            "update_email_provider",
            "Sets which SMTP server sends the messages: one of your own, or the one that Neon shares.",
            whole="config",
        ),
        Call("sendNeonAuthTestEmail", "send_test_email", "Sends a message through an SMTP server, to try it."),
        Call(
            "listBranchNeonAuthOauthProviders",
            "oauth_providers",
            "Lists the providers that users can sign in with.",
            paged=Paged("providers"),
        ),
        Call(
            "addBranchNeonAuthOauthProvider",
            "add_oauth_provider",
            "Lets users sign in with a provider.",
            "Neon's own client is used unless you give yours.",
            renames={"id": "oauth_provider_id"},
        ),
        Call(
            "updateBranchNeonAuthOauthProvider",
            "update_oauth_provider",
            "Changes the client that users sign in with; what is left out stays.",
        ),
        Call(
            "deleteBranchNeonAuthOauthProvider",
            "delete_oauth_provider",
            "No longer lets users sign in with a provider.",
        ),
        Call("getNeonAuthPluginConfigs", "plugins", "Reads the settings of all parts of Neon Auth."),
        Call(
            "updateNeonAuthMagicLinkPlugin",
            "update_magic_link",
            "Changes how users sign in by a link in a message; what is left out stays.",
            "`expires_in` is in minutes.",
        ),
        Call(
            "updateNeonAuthOrganizationPlugin",
            "update_organization",
            "Changes how organizations of an application's users work; what is left out stays.",
        ),
        Call("getNeonAuthPhoneNumberPlugin", "phone_number", "Reads how users sign in by a code sent to a telephone."),
        Call(
            "updateNeonAuthPhoneNumberPlugin",
            "update_phone_number",
            "Changes how users sign in by a code sent to a telephone; what is left out stays.",
            "`otp_expires_in` is in seconds.",
        ),
        Call("createBranchNeonAuthNewUser", "create_user", "Creates a user, and gives its id.", unwrap="id"),
        Call("deleteBranchNeonAuthUser", "delete_user", "Deletes a user."),
        Call("updateNeonAuthUserRole", "set_user_roles", "Sets the roles of a user, and gives its id.", unwrap="id"),
        Call("getNeonAuthWebhookConfig", "webhook", "Reads which events are reported, and where."),
        Call("updateNeonAuthWebhookConfig", "set_webhook", "Sets which events are reported, and where."),
    ),
)

_AUTH_LEGACY = Group(
    "auth_legacy",
    "Neon Auth in its first form, by project. New code uses `neon.auth`.",
    (
        Call("listNeonAuthIntegrations", "list", "Lists the integrations of a project.", paged=Paged("data")),
        Call("createNeonAuthIntegration", "create", "Integrates a project with an auth provider."),
        Call("deleteNeonAuthIntegration", "delete", "Ends an integration; its tables stay, unless `delete_data=True`."),
        Call("createNeonAuthProviderSDKKeys", "create_sdk_keys", "Creates keys for the SDK of the auth provider."),
        Call(
            "transferNeonAuthProviderProject",
            "transfer_ownership",
            "Gives a URL at which the auth provider's project becomes your own.",
            unwrap="url",
        ),
        Call("createNeonAuthNewUser", "create_user", "Creates a user, and gives its id.", unwrap="id"),
        Call("deleteNeonAuthUser", "delete_user", "Deletes a user."),
        Call(
            "listNeonAuthRedirectURIWhitelistDomains",
            "domains",
            "Lists the domains that users may be sent back to.",
            paged=Paged("domains"),
        ),
        Call("addNeonAuthDomainToRedirectURIWhitelist", "add_domain", "Lets users be sent back to a domain."),
        Call(
            "deleteNeonAuthDomainFromRedirectURIWhitelist",
            "delete_domains",
            "No longer lets users be sent back to domains.",
        ),
        Call("getNeonAuthEmailServer", "email_server", "Reads which SMTP server sends the messages."),
        Call(
            "updateNeonAuthEmailServer",
            "update_email_server",
            "Sets which SMTP server sends the messages: one of your own, or the one that Neon shares.",
            whole="config",
        ),
        Call(
            "listNeonAuthOauthProviders",
            "oauth_providers",
            "Lists the providers that users can sign in with.",
            paged=Paged("providers"),
        ),
        Call(
            "addNeonAuthOauthProvider",
            "add_oauth_provider",
            "Lets users sign in with a provider.",
            renames={"id": "oauth_provider_id"},
        ),
        Call(
            "updateNeonAuthOauthProvider",
            "update_oauth_provider",
            "Changes the client that users sign in with; what is left out stays.",
        ),
        Call("deleteNeonAuthOauthProvider", "delete_oauth_provider", "No longer lets users sign in with a provider."),
    ),
)

_DATA_API = Group(
    "data_api",
    "The Data API: REST over one database of a branch.",
    (
        Call("getProjectBranchDataAPI", "get", "Reads where the Data API answers, and its settings."),
        Call(
            "createProjectBranchDataAPI",
            "create",
            "Sets the Data API up for a database, and gives the URL where it answers.",
            unwrap="url",
        ),
        Call(
            "updateProjectBranchDataAPI",
            "update",
            "Changes the settings of the Data API, and makes it read the database's schema again.",
        ),
        Call("deleteProjectBranchDataAPI", "delete", "Takes the Data API off a database."),
    ),
)

_JWKS = Group(
    "jwks",
    "Keys, published at a URL, that sign tokens for a project.",
    (
        Call("getProjectJWKS", "list", "Lists the sets of keys that a project trusts.", paged=Paged("jwks")),
        Call("addProjectJWKS", "add", "Makes a project trust a set of keys."),
        Call("deleteProjectJWKS", "delete", "Ends the trust in a set of keys."),
    ),
)

_ADVISORS = Group(
    "advisors",
    "Findings of the security and performance advisors.",
    (
        Call(
            "getProjectAdvisorSecurityIssues",
            "list",
            "Lists what the advisors find in a database.",
            paged=Paged("issues"),
        ),
    ),
)

_BUCKETS = Group(
    "buckets",
    "Object storage of a branch: buckets and the objects in them.",
    (
        Call("getProjectBranchStorage", "storage", "Reads where the object storage of a branch is reached."),
        Call("listProjectBranchBuckets", "list", "Lists the buckets of a branch.", paged=Paged("buckets")),
        Call("createProjectBranchBucket", "create", "Creates a bucket.", unwrap="bucket"),
        Call("deleteProjectBranchBucket", "delete", "Deletes a bucket."),
        Call(
            "listProjectBranchBucketObjects",
            "objects",
            "Lists the objects of a bucket.",
            "With `delimiter` what is below it is one folder, in `folders` of the page's reply.",
            paged=Paged("objects", "next_cursor"),
        ),
        Call("getProjectBranchBucketObject", "download", "Reads an object: its bytes, in memory."),
        Call(
            "presignProjectBranchBucketObject",
            "presign",
            "Gives a URL that works without credentials until it expires.",
            "15 minutes, unless `expires_in_seconds` says otherwise.",
        ),
        Call("deleteProjectBranchBucketObject", "delete_object", "Deletes an object."),
        Call(
            "deleteProjectBranchBucketObjectsByPrefix",
            "delete_objects",
            "Deletes the objects whose keys begin with `prefix`, and counts them.",
            unwrap="deleted",
        ),
    ),
)

_FUNCTIONS = Group(
    "functions",
    "Functions of a branch.",
    (
        Call("listProjectBranchFunctions", "list", "Lists the functions of a branch.", paged=Paged("functions", NEXT)),
        Call("getProjectBranchFunction", "get", "Reads one function.", unwrap="function"),
        Call("updateProjectBranchFunction", "update", "Gives a function another name, or none.", unwrap="function"),
        Call("deleteProjectBranchFunction", "delete", "Deletes a function and its deployments."),
        Call(
            "createProjectBranchFunctionDeployment",
            "deploy",
            "Deploys a function from the bytes of a ZIP archive.",
            "`environment` is a JSON object as text.",
            renames={"zip": "archive"},
            unwrap="deployment",
        ),
    ),
)

_CREDENTIALS = Group(
    "credentials",
    "Credentials of a branch for storage, functions and the AI gateway.",
    (
        Call("listCredentials", "list", "Lists the credentials, without their secrets.", paged=Paged("credentials")),
        Call("createCredential", "create", "Creates a credential; its secrets are shown this once."),
        Call("revokeCredential", "revoke", "Revokes a credential, for good."),
    ),
)

_AI_GATEWAY = Group(
    "ai_gateway",
    "The AI gateway of a branch.",
    (Call("getProjectBranchAiGateway", "get", "Reads where the AI gateway of a branch is reached."),),
)

_ANONYMIZATION = Group(
    "anonymization",
    "Branches whose data is masked.",
    (
        Call(
            "createProjectBranchAnonymized",
            "create_branch",
            "Creates a branch whose data is masked by rules.",
            "Masking begins with `start_anonymization=True`, else when `start` is called.",
            renames=_NEW_BRANCH,
            flatten=("branch_create", "branch_create.branch"),
            at=(_PARENT_AT,),
        ),
        Call("startAnonymization", "start", "Begins to mask the data of a branch."),
        Call("getAnonymizedBranchStatus", "status", "Reads how far the masking of a branch is."),
        Call(
            "getMaskingRules",
            "masking_rules",
            "Reads the rules that mask the data of a branch.",
            unwrap="masking_rules",
        ),
        Call(
            "updateMaskingRules",
            "update_masking_rules",
            "Sets the rules that mask the data of a branch.",
            unwrap="masking_rules",
        ),
    ),
)

#: Every group, by its name on the client.
GROUPS: Final[Mapping[str, Group]] = MappingProxyType(
    {
        group.name: group
        for group in (
            _PROJECTS,
            _BRANCHES,
            _ENDPOINTS,
            _DATABASES,
            _ROLES,
            _OPERATIONS,
            _API_KEYS,
            _ORGANIZATIONS,
            _USERS,
            _REGIONS,
            _SNAPSHOTS,
            _CONSUMPTION,
            _PERMISSIONS,
            _TRANSFERS,
            _VPC,
            _AUTH,
            _AUTH_LEGACY,
            _DATA_API,
            _JWKS,
            _ADVISORS,
            _BUCKETS,
            _FUNCTIONS,
            _CREDENTIALS,
            _AI_GATEWAY,
            _ANONYMIZATION,
        )
    }
)


def calls() -> Iterator[tuple[Group, Call]]:
    """Every operation with its group, in the order of the table."""
    for group in GROUPS.values():
        for call in group.calls:
            yield group, call


#: Where an operation is on the client, by its id: `createProjectBranch` is `branches.create`.
PLACES: Final[Mapping[str, tuple[Group, Call]]] = MappingProxyType({call.id: (group, call) for group, call in calls()})
