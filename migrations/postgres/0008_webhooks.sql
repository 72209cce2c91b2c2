-- Why: who wants to be told of ends by a request of ours, and what is on its way. A delivery is written in the statement that ends its
-- task or batch, so that none is forgotten; workers claim what is due.
create table webhook_endpoints (
  id            uuid primary key,                -- the project's own id: what its tasks' own webhooks are signed with
  project       uuid not null references projects,
  name          text not null,
  url           text,                            -- null: each task names its own
  event_types   text not null,                   -- names, a space before and after each
  secret        text not null,
  old_secret    text,                            -- signs as well until then
  old_until     bigint,
  created_at    bigint not null,
  updated_at    bigint not null,
  failing_since bigint,                          -- the first failure since the last success
  disabled_at   bigint
);
create index webhook_endpoints_page on webhook_endpoints (project, id);

create table webhook_deliveries (
  id          uuid primary key,                  -- in the order of time
  project     uuid not null,
  endpoint    uuid not null,             -- no foreign key: an end is written down whatever becomes of its endpoint
  target      uuid not null,                     -- who shares a receiver
  url         text,                              -- the task's own; null: the endpoint's
  event_type  text not null,
  subject     uuid not null,                     -- the task or batch
  state       text not null default 'pending',
  attempts    integer not null default 0,
  created_at  bigint not null,
  due_at      bigint,                            -- next attempt, or when a claim has run out; null once it is over
  last_status smallint,
  last_error  text,
  ended_at    bigint
);
create index webhook_deliveries_due  on webhook_deliveries (target, due_at) where due_at is not null;
create index webhook_deliveries_page on webhook_deliveries (project, id);
create index webhook_deliveries_of   on webhook_deliveries (endpoint, id);
create index webhook_deliveries_kept on webhook_deliveries (ended_at) where ended_at is not null;

-- A JSON object: url, target, event_types.
alter table payloads add column webhook text;

-- A version 7 UUID: this moment's milliseconds, then chance.
create function uuid7() returns uuid language sql volatile as $$
  select (lpad(to_hex(now_ms()), 12, '0') || '7' || substr(replace(gen_random_uuid()::text, '-', ''), 14))::uuid
$$;
