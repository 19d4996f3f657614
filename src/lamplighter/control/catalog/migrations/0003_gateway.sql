-- The address of the pooler beside an endpoint's own. Endpoints of before get theirs at the next start of a platform.
alter table endpoints add column pooler_port int unique;

-- The port that was given last: the next one comes after it.
alter table platform add column last_port int;

-- What an endpoint's compute was used for, an hour a row. Kept when the endpoint is gone, for it has been used.
create table endpoint_usage (
    endpoint_id          text not null,
    branch_id            text not null,
    project_id           text not null,
    hour                 timestamptz not null,
    active_seconds       bigint not null default 0,
    compute_milliseconds bigint not null default 0,
    bytes_in             bigint not null default 0,
    bytes_out            bigint not null default 0,
    primary key (endpoint_id, hour)
);
create index endpoint_usage_by_project on endpoint_usage (project_id, hour);
create index endpoint_usage_by_branch on endpoint_usage (branch_id, hour);
