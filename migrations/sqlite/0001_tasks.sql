-- Why: the truth of the whole platform. A task is one narrow, hot row; what is long or written once lives beside it, so that
-- the three updates of a task's life (claim, finish, perhaps a retry) rewrite as little as possible.
-- Moments are integer milliseconds since the epoch, by this machine's clock: cast(unixepoch('subsec') * 1000 as integer).
--
-- What differs from Postgres, and why: `not null` on primary keys, because SQLite lets them be null; `without rowid` on narrow
-- tables, so that a row and its key are one tree; bodies come last in their row, because SQLite walks a long value to reach what
-- is behind it.

create table projects (
  id         blob not null primary key,
  name       text not null unique,
  created_at integer not null
);
insert into projects values (zeroblob(16), 'default', cast(unixepoch('subsec') * 1000 as integer));

create table tasks (
  id                blob not null primary key,
  project           blob not null,
  batch             blob,
  started_by        blob,                       -- worker incarnation, while in_progress
  created_at        integer not null,
  ready_at          integer not null,            -- became (or becomes) queued
  wake_at           integer,                     -- next moment that matters to sweep: due, queue timeout or deadline; null once terminal
  started_at        integer,
  finished_at       integer,
  expires_at        integer not null,
  result_expires_at integer,                     -- retention; null until terminal
  last_seq          integer not null,
  line              integer,
  attempt           integer not null default 0, -- the fence: it only rises
  failures          integer not null default 0,
  crashes           integer not null default 0,
  max_attempts      integer not null,
  priority          integer not null,
  state             text not null,
  queue             text not null,
  relay             text not null,
  endpoint          text not null,
  model             text not null
) without rowid;
create index tasks_ready  on tasks (queue, project, priority desc, id, ready_at) where state = 'queued'; -- ready_at: figures without the row
create index tasks_later  on tasks (queue, project) where state = 'scheduled';
create index tasks_wake   on tasks (wake_at) where wake_at is not null;
create index tasks_owner  on tasks (started_by) where state = 'in_progress';
create index tasks_page   on tasks (project, id);
create index tasks_batch  on tasks (batch, line) where batch is not null;
create index tasks_open   on tasks (batch) where batch is not null and wake_at is not null; -- lines that have not ended
create index tasks_kept   on tasks (result_expires_at) where result_expires_at is not null; -- retention

-- What the client sent: written once.
create table payloads (
  task                 blob not null primary key,
  object               text,
  object_len           integer,
  queue_timeout_ms     integer,
  execution_timeout_ms integer not null,
  ttl_ms               integer not null,
  backoff_base_ms      integer not null,
  backoff_max_ms       integer not null,
  result_ttl_ms        integer not null,
  custom_id            text,
  metadata             text,                    -- a JSON object of strings
  body                 blob                     -- null: in the object store
);

-- How the run ended, and between attempts why the last one did not: one row a task.
create table results (
  task             blob not null primary key,
  attempt          integer not null,
  status           integer,                    -- of the kept answer
  content_type     text,
  request_id       text,
  object           text,
  object_len       integer,
  upstream         text,
  error            text,                        -- a JSON object
  input_tokens     integer,
  cached_tokens    integer,
  output_tokens    integer,
  reasoning_tokens integer,
  body             blob                        -- null: no answer, or in the object store
);

-- Attempts that did not win: the usage they spent is accounted all the same.
create table attempts (
  task             blob not null,
  attempt          integer not null,
  ended_at         integer not null,
  upstream         text,
  error            text,
  input_tokens     integer,
  cached_tokens    integer,
  output_tokens    integer,
  reasoning_tokens integer,
  primary key (task, attempt)
) without rowid;

create table idempotency (
  project     blob not null,
  key         text not null,
  fingerprint blob not null,
  task        blob not null,
  expires_at  integer not null,
  primary key (project, key)
) without rowid;
create index idempotency_expiry on idempotency (expires_at);
create index idempotency_task on idempotency (task); -- a deleted task frees its key

create table workers (
  id         blob not null primary key,
  name       text not null,
  slots      integer not null,
  running    integer not null default 0,
  queues     text not null,                     -- a JSON array of names
  seen_at    integer not null,
  lease_until integer not null,
  reaped     integer not null default 0
);

create table batches (
  id                blob not null primary key,
  project           blob not null,
  state             text not null,
  endpoint          text not null,
  completion_window text not null,
  model             text,
  metadata          text,
  errors            text,
  total             integer not null,
  created_at        integer not null,
  expires_at        integer not null,
  in_progress_at    integer,
  finalizing_at     integer,
  cancelling_at     integer,
  finished_at       integer,
  result_expires_at integer,
  result_ttl_ms     integer not null
);
create index batches_page on batches (project, id);
create index batches_open on batches (id) where finished_at is null;
create index batches_kept on batches (result_expires_at) where result_expires_at is not null;

-- One row per line that ended (completed or failed = 1), a negative one when a retry takes it back: summed at GET, so that no
-- row is hot.
create table batch_counts (
  batch            blob not null,
  task             blob not null,
  attempt          integer not null,
  completed        integer not null,
  failed           integer not null,
  input_tokens     integer not null,
  cached_tokens    integer not null,
  output_tokens    integer not null,
  reasoning_tokens integer not null
);
create index batch_counts_sum on batch_counts (batch, task);

-- What workers noted of each upstream's list of models.
create table upstream_models (
  upstream text not null primary key,
  models   text,                                -- a JSON array; null: the list is unavailable
  noted_at integer not null
);
