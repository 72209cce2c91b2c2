-- Why: on Postgres a function counts a project's running tasks, and should find them by who runs them. Here the statement itself says so:
-- nothing to change.
select 1;
