-- Why: tasks that took two workers down are claimed in a way of their own (Store::claim_suspect), looked for every second.
create index tasks_suspect on tasks (ready_at) where crashes >= 2 and finished_at is null;
