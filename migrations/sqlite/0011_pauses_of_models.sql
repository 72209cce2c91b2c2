-- Why: most limits of a model server are one model's, and what waits wants to know why it does. A pause is of a model, or of the whole
-- upstream. The table `pauses` stays for programs that are older than this one.
create table upstream_pauses (
  upstream text not null,
  model    text not null,                       -- empty: all of its models
  until    integer not null,                    -- nobody calls before
  cause    text not null,                       -- throttled; with any other, after it one caller at a time, until one succeeds
  primary key (upstream, model)
);
