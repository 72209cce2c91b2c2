-- Why: an attempt that ends by itself says how far it has told. One that is given back, cancelled or late cannot: if its log is lost too, the
-- next one must not use its seqs again.
alter table tasks add column floor_unknown integer not null default 0;
