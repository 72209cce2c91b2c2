-- Why: a project's running tasks are found by who runs them. `project = $1` would look as good to the planner, and reads all tasks that
-- the project ever had; `is not distinct from` fits no index.
create or replace function running(uuid) returns bigint language plpgsql volatile as $$
begin
  perform from projects where id = $1 for no key update;
  return (select count(*) from tasks where started_by is not null and project is not distinct from $1);
end $$;
