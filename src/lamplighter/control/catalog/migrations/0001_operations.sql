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
    check (lease_owner is null or finished_at is null)
);

-- Paging: a page ends at a time, so a project never has two operations with the same one.
create unique index operations_by_time on operations (project_id, created_at);

-- Claiming looks at nothing but the few that have not ended, however many have.
create index operations_unfinished on operations (project_id, seq) where finished_at is null;
