-- Why: of a project only so many tasks may run at once. Whoever starts one counts those that run, and locks the project first, so
-- that of several claims each sees what the one before it has started: a statement of a volatile function looks anew.
create function running(uuid) returns bigint language plpgsql volatile as $$
begin
  perform from projects where id = $1 for no key update;
  return (select count(*) from tasks where started_by is not null and project = $1);
end $$;

-- The input rule whose moderation model must pass the task before its own model is called.
alter table payloads add column moderation text;
