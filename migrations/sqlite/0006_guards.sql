-- Why: the input rule whose moderation model must pass the task before its own model is called. (Of a project only so many tasks may
-- run at once: here the one writer counts them.)
alter table payloads add column moderation text;
