-- Why: a model server that asks for a pause, or that fails again and again, is left alone by all workers at once, and tasks
-- that only it could run stay unclaimed meanwhile. One row per such upstream, as its moments are the database's.
create table pauses (
  upstream text not null primary key,
  until    integer not null,                    -- nobody calls before
  failing  integer not null                     -- and after it one caller at a time, until one of them succeeds
);
