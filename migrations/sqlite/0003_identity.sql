-- Why: tenants that do not trust each other share one installation. A key is known by its SHA-256 alone, so that whoever reads
-- this table cannot call. Nothing here is on the way of a task: the API remembers a key for a moment.
create table api_keys (
  id         blob not null primary key,
  project    blob not null references projects,
  name       text not null,
  quotas     text,                              -- a JSON object: limits of its own
  hint       text not null,                     -- its first characters, by which people tell keys apart
  digest     blob not null unique,
  scopes     text not null,                     -- names with commas
  lives_ms   integer,                           -- from made to expired; null: for ever
  created_at integer not null,
  expires_at integer,
  revoked_at integer,
  used_at    integer                             -- to the minute
);

-- Every administrative act, written in the same statement as what it changed. Nothing changes or removes a row.
create table acts (
  id      blob not null primary key,            -- in the order of time
  at      integer not null,
  actor   text not null,                        -- who: a key's id, a user, operator, or command line
  action  text not null,                        -- what: key.create, key.revoke, …
  project blob,
  target  text not null,                        -- on what: an id
  detail  text not null                         -- a JSON object
);

-- Limits of its own, a JSON object.
alter table projects add column quotas text;
