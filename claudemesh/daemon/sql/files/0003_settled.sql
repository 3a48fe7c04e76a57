-- The host-lived time at which the file came to its end. NULL until then, and until housekeeping has seen an older row.
ALTER TABLE shared ADD COLUMN settled_lived INTEGER;

-- Files whose request is still kept.
CREATE INDEX shared_settled ON shared (settled_lived)
WHERE state IN ('shared', 'failed', 'deleted') AND json_extract(request, '$.message') IS NOT NULL;
