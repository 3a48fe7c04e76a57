-- The same table on both engines; an embedded broker has no others to know instances of.
ALTER TABLE presence ADD COLUMN instance_id TEXT NOT NULL DEFAULT '';
