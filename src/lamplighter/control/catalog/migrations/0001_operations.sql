-- Operations: the only way in which the control plane changes the world. A row is written in the transaction of the request
-- that asks for it, claimed by an engine under a lease, and ends in one of five terminal states.

create table operations (
    id              uuid primary key,
    seq             bigint generated always as identity unique,
    project_id      text not null,
    branch_id       text,
    endpoint_id     text,
    kind            text not null,
    action          text not null,
    status          text not null check (status in (
        'scheduling', 'running', 'finished', 'failed', 'error', 'cancelling', 'cancelled', 'skipped')),
    visible         boolean not null default true,
    -- False for what the engine tries again by itself after the operation has failed for its client: it waits for the
    -- others of its project, and nothing waits for it but while it runs.
    blocking        boolean not null default true,
    group_id        uuid not null,
    arguments       jsonb not null default '{}',
    steps_done      text[] not null default '{}',
    error           text,
    failures_count  int not null default 0 check (failures_count >= 0),
    retry_at        timestamptz,
    created_at      timestamptz not null,
    updated_at      timestamptz not null,
    started_at      timestamptz,
    finished_at     timestamptz,
    lease_owner     text,
    lease_until     timestamptz,
    check ((finished_at is not null) = (status in ('finished', 'failed', 'error', 'cancelled', 'skipped'))),
    check ((lease_owner is null) = (lease_until is null)),
    check (lease_owner is null or finished_at is null),
    check (blocking or not visible)
);

-- Paging: a page ends at a time, so a project never shows two operations with the same one.
create unique index operations_by_time on operations (project_id, created_at) where visible;

-- Claiming looks at nothing but the few that have not ended, however many have.
create index operations_unfinished on operations (project_id, seq) where finished_at is null;

-- One at a time: two engines may each see an operation of a project that could begin, one of them in the background.
create unique index operations_at_work on operations (project_id) where lease_owner is not null;
