-- Why: the truth of the whole platform. A task is one narrow, hot row; what is long or written once lives beside it, so that
-- the three updates of a task's life (claim, finish, perhaps a retry) rewrite as little as possible.
-- Moments are bigint milliseconds since the epoch, always by this database's clock: now_ms(),
-- one and the same within a statement.

create function now_ms() returns bigint language sql stable parallel safe
  as $$ select (extract(epoch from statement_timestamp()) * 1000)::bigint $$;

create table projects (
  id         uuid primary key,
  name       text not null unique,
  created_at bigint not null
);
insert into projects values ('00000000-0000-0000-0000-000000000000', 'default', now_ms());

create table tasks (
  id                uuid primary key,
  project           uuid not null,
  batch             uuid,
  started_by        uuid,                       -- worker incarnation, while in_progress
  created_at        bigint not null,
  ready_at          bigint not null,            -- became (or becomes) queued
  wake_at           bigint,                     -- next moment that matters to sweep: due, queue timeout or deadline; null once terminal
  started_at        bigint,
  finished_at       bigint,
  expires_at        bigint not null,
  result_expires_at bigint,                     -- retention; null until terminal
  last_seq          bigint not null,
  line              integer,
  attempt           integer not null default 0, -- the fence: it only rises
  failures          smallint not null default 0,
  crashes           smallint not null default 0,
  max_attempts      smallint not null,
  priority          smallint not null,
  state             text not null,
  queue             text not null,
  relay             text not null,
  endpoint          text not null,
  model             text not null
) with (fillfactor = 50);
create index tasks_ready  on tasks (queue, project, priority desc, id) where state = 'queued';
create index tasks_wake   on tasks (wake_at) where wake_at is not null;
-- Two sweeps share one index: attempts by their worker, and (where no worker holds the row) ended tasks by their keeping time.
create index tasks_held   on tasks (started_by, result_expires_at) where started_by is not null or result_expires_at is not null;
create index tasks_page   on tasks (project, id);
create index tasks_batch  on tasks (batch, id) where batch is not null;

-- What the client sent: written once.
create table payloads (
  task                 uuid primary key,
  body                 bytea,                   -- null: in the object store
  object               text,
  object_len           bigint,
  queue_timeout_ms     bigint,
  execution_timeout_ms bigint not null,
  ttl_ms               bigint not null,
  backoff_base_ms      bigint not null,
  backoff_max_ms       bigint not null,
  result_ttl_ms        bigint not null,
  custom_id            text,
  metadata             text                     -- a JSON object of strings
);

-- How the run ended, and between attempts why the last one did not: one row a task.
create table results (
  task             uuid primary key,
  attempt          integer not null,
  status           smallint,                    -- of the kept answer
  content_type     text,
  request_id       text,
  body             bytea,                       -- null: no answer, or in the object store
  object           text,
  object_len       bigint,
  upstream         text,
  error            text,                        -- a JSON object
  input_tokens     bigint,
  cached_tokens    bigint,
  output_tokens    bigint,
  reasoning_tokens bigint
);

-- Attempts that did not win: the usage they spent is accounted all the same.
create table attempts (
  task             uuid not null,
  attempt          integer not null,
  ended_at         bigint not null,
  upstream         text,
  error            text,
  input_tokens     bigint,
  cached_tokens    bigint,
  output_tokens    bigint,
  reasoning_tokens bigint,
  primary key (task, attempt)
);

create table idempotency (
  project     uuid not null,
  key         text not null,
  fingerprint bytea not null,
  task        uuid not null,
  expires_at  bigint not null,
  primary key (project, key)
);
create index idempotency_expiry on idempotency (expires_at);

create table workers (
  id         uuid primary key,
  name       text not null,
  slots      integer not null,
  running    integer not null default 0,
  queues     text not null,                     -- a JSON array of names
  seen_at    bigint not null,
  lease_until bigint not null,
  reaped     boolean not null default false
);

create table batches (
  id                uuid primary key,
  project           uuid not null,
  state             text not null,
  endpoint          text not null,
  completion_window text not null,
  model             text,
  metadata          text,
  errors            text,
  total             integer not null,
  created_at        bigint not null,
  expires_at        bigint not null,
  in_progress_at    bigint,
  finalizing_at     bigint,
  cancelling_at     bigint,
  finished_at       bigint,
  result_expires_at bigint,
  result_ttl_ms     bigint not null
);
create index batches_page on batches (project, id);
create index batches_open on batches (id) where finished_at is null;
create index batches_kept on batches (result_expires_at) where result_expires_at is not null;

-- One row per line that ended (completed or failed = 1), a negative one when a retry takes it back: summed at GET, so that no
-- row is hot. Sweep folds them into one, whose task is nil.
create table batch_counts (
  batch            uuid not null,
  task             uuid not null,
  attempt          integer not null,
  completed        integer not null,
  failed           integer not null,
  input_tokens     bigint not null,
  cached_tokens    bigint not null,
  output_tokens    bigint not null,
  reasoning_tokens bigint not null
);
create index batch_counts_sum on batch_counts (batch);

-- What workers noted of each upstream's list of models.
create table upstream_models (
  upstream text primary key,
  models   text,                                -- a JSON array; null: the list is unavailable
  noted_at bigint not null
);
