-- The resources that the API shows. Rows that are on their way out carry deleted_at: they are hidden from readers at once,
-- and their operation removes them for good once nothing on disk or in memory is left of them.

-- Which platform this catalog belongs to: the data directory carries the same id, so that neither is ever used with
-- another's. One row.
create table platform (
    id         uuid primary key,
    created_at timestamptz not null,
    only_one   boolean not null default true unique check (only_one)
);

create table users (
    id          uuid primary key,
    email       text not null unique,
    name        text not null,
    last_name   text not null default '',
    login       text not null,
    image       text not null default '',
    created_at  timestamptz not null
);

create table organizations (
    id          text primary key,
    name        text not null,
    handle      text not null unique,
    plan        text not null default 'scale',
    created_at  timestamptz not null,
    updated_at  timestamptz not null
);

create table members (
    id          uuid primary key,
    user_id     uuid not null references users on delete cascade,
    org_id      text not null references organizations on delete cascade,
    role        text not null,
    joined_at   timestamptz not null,
    unique (org_id, user_id)
);
create index members_by_user on members (user_id);

create table projects (
    id                        text primary key,
    org_id                    text not null references organizations,
    owner_user_id             uuid not null references users,
    name                      text not null,
    region_id                 text not null,
    pg_version                int not null,
    provisioner               text not null,
    store_passwords           boolean not null,
    default_endpoint_settings jsonb not null,
    settings                  jsonb not null,
    history_retention_seconds int not null,
    created_at                timestamptz not null,
    updated_at                timestamptz not null,
    deleted_at                timestamptz
);
create index projects_by_org on projects (org_id, id) where deleted_at is null;

-- A key is stored as the SHA-256 of its token: the token has the entropy, so a slow hash would only cost every request.
create table api_keys (
    id                  bigint generated always as identity primary key,
    name                text not null,
    token_hash          bytea not null unique,
    created_by          uuid not null references users,
    org_id              text references organizations on delete cascade,
    project_id          text references projects on delete cascade,
    created_at          timestamptz not null,
    last_used_at        timestamptz,
    last_used_from_addr text not null default '',
    revoked_at          timestamptz,
    check (project_id is null or org_id is not null)
);

create table branches (
    id                   text primary key,
    project_id           text not null references projects on delete cascade,
    parent_id            text references branches,
    parent_timestamp     timestamptz,
    parent_lsn           text,
    name                 text not null,
    is_default           boolean not null,
    protected            boolean not null default false,
    current_state        text not null,
    pending_state        text,
    state_changed_at     timestamptz not null,
    init_source          text not null default 'parent-data',
    creation_source      text not null default 'console',
    created_by_name      text not null default '',
    logical_size         bigint,
    expires_at           timestamptz,
    ttl_interval_seconds int,
    annotation           jsonb not null default '{}',
    created_at           timestamptz not null,
    updated_at           timestamptz not null,
    deleted_at           timestamptz
);
create unique index branches_name on branches (project_id, name) where deleted_at is null;
create unique index branches_default on branches (project_id) where is_default and deleted_at is null;
create index branches_by_parent on branches (parent_id);
create index branches_expiring on branches (expires_at) where expires_at is not null and deleted_at is null;

create table endpoints (
    id                       text primary key,
    project_id               text not null references projects on delete cascade,
    branch_id                text not null references branches on delete cascade,
    name                     text,
    type                     text not null,
    current_state            text not null,
    pending_state            text,
    autoscaling_limit_min_cu double precision not null,
    autoscaling_limit_max_cu double precision not null,
    suspend_timeout_seconds  bigint not null,
    settings                 jsonb not null,
    pooler_mode              text not null default 'transaction',
    disabled                 boolean not null default false,
    passwordless_access      boolean not null default true,
    region_id                text not null,
    provisioner              text not null,
    creation_source          text not null default 'console',
    port                     int not null unique,
    last_active              timestamptz,
    started_at               timestamptz,
    suspended_at             timestamptz,
    created_at               timestamptz not null,
    updated_at               timestamptz not null,
    deleted_at               timestamptz
);
create unique index endpoints_read_write on endpoints (branch_id) where type = 'read_write' and deleted_at is null;
create index endpoints_by_project on endpoints (project_id);

-- What the API wants inside a branch's Postgres. `made` is false until it has been there for the first time, `applied`
-- until the last change of it (owner, name, password) has been brought about. What a database was before a change that
-- is not applied yet stands in `was` and `was_owner`.
create table roles (
    branch_id             text not null references branches on delete cascade,
    name                  text not null,
    password_sealed       bytea,
    authentication_method text not null default 'password',
    protected             boolean not null default false,
    made                  boolean not null default false,
    applied               boolean not null default false,
    created_at            timestamptz not null,
    updated_at            timestamptz not null,
    deleted_at            timestamptz,
    primary key (branch_id, name)
);

create table databases (
    id          bigint generated always as identity primary key,
    branch_id   text not null references branches on delete cascade,
    name        text not null,
    was         text,
    owner_name  text not null,
    was_owner   text,
    made        boolean not null default false,
    applied     boolean not null default false,
    created_at  timestamptz not null,
    updated_at  timestamptz not null,
    deleted_at  timestamptz
);
create unique index databases_name on databases (branch_id, name) where deleted_at is null;
