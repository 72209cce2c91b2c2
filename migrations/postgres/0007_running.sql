-- Why: a project's running tasks are found by who runs them. `project = $1` would look as good to the planner, and reads all tasks that
-- the project ever had; `is not distinct from` fits no index, and a range of workers fits one alone.
create or replace function running(uuid) returns bigint language plpgsql volatile as $$
begin
  perform from projects where id = $1 for no key update;
  return (select count(*) from tasks where started_by > '00000000-0000-0000-0000-000000000000'
    and project is not distinct from $1);
end $$;
