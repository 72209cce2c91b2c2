-- Why: who wants to be told of ends by a request of ours, and what is on its way. A delivery is written in the transaction that ends its
-- task or batch, so that none is forgotten; the worker claims what is due.
create table webhook_endpoints (
  id            blob not null primary key,       -- the project's own id: what its tasks' own webhooks are signed with
  project       blob not null references projects,
  name          text not null,
  url           text,                            -- null: each task names its own
  event_types   text not null,                   -- names, a space before and after each
  secret        text not null,
  old_secret    text,                            -- signs as well until then
  old_until     integer,
  created_at    integer not null,
  updated_at    integer not null,
  failing_since integer,                         -- the first failure since the last success
  disabled_at   integer
);
create index webhook_endpoints_page on webhook_endpoints (project, id);

create table webhook_deliveries (
  id          blob not null primary key,         -- in the order of time
  project     blob not null,
  endpoint    blob not null,             -- no foreign key: an end is written down whatever becomes of its endpoint
  target      blob not null,                     -- who shares a receiver
  url         text,                              -- the task's own; null: the endpoint's
  event_type  text not null,
  subject     blob not null,                     -- the task or batch
  state       text not null default 'pending',
  attempts    integer not null default 0,
  created_at  integer not null,
  due_at      integer,                           -- next attempt, or when a claim has run out; null once it is over
  last_status integer,
  last_error  text,
  ended_at    integer
);
create index webhook_deliveries_due  on webhook_deliveries (target, due_at) where due_at is not null;
create index webhook_deliveries_page on webhook_deliveries (project, id);
create index webhook_deliveries_of   on webhook_deliveries (endpoint, id);
create index webhook_deliveries_kept on webhook_deliveries (ended_at) where ended_at is not null;

-- A JSON object: url, target, event_types.
alter table payloads add column webhook text;
