-- Why: a database that can be read and not written is not ready. Whether it takes a write is only known by one: this row is written
-- over and over, and means nothing.
create table readiness (
  id smallint primary key,
  at bigint not null
);
