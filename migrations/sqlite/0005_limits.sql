-- Why: what a project's callers may do is limited. Tokens are reserved when a task is accepted and settled when it ends; tasks that
-- wait are counted, the scheduled ones by this index (the queued ones by tasks_ready).
alter table payloads add column reserved text;
create index tasks_scheduled on tasks (project) where state = 'scheduled';
