-- Why: browsers cannot send a key when they open a socket. What they show instead stands in a URL: it is good once, for a minute, and known
-- here by its SHA-256 alone.
create table ws_tickets (
  digest     bytea primary key,
  holder     text not null,                     -- a JSON object: whom it lets in
  expires_at bigint not null
);
create index ws_tickets_expiry on ws_tickets (expires_at);
