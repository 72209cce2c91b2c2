-- Why: a crash is charged to every task that its worker held (crashes), but a task is given up on only for those that it can be shown to have
-- caused (blamed): it ran alone, or it was the last to start, with nothing else started since.
alter table tasks add column blamed smallint not null default 0;
