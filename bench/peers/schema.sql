-- What both peers keep of a task. Each has it in a database of its own.
create table tasks (
    id          uuid primary key,
    state       text not null default 'queued' check (state in ('queued', 'in_progress', 'completed', 'failed')),
    model       text not null,
    request     jsonb not null,
    result      jsonb,
    error       text,
    attempts    int not null default 0,
    created_at  timestamptz not null default now(),
    started_at  timestamptz,
    finished_at timestamptz
);
