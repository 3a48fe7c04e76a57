-- The session that brought a message into each of its states. `seen_by` stays the one of its furthest state.
ALTER TABLE inbox ADD COLUMN notified_by TEXT;

ALTER TABLE inbox ADD COLUMN shown_by TEXT;

ALTER TABLE inbox ADD COLUMN acked_by TEXT;

UPDATE inbox SET acked_by = iif(acked_at IS NOT NULL, seen_by, NULL),
  shown_by = iif(acked_at IS NULL AND shown_at IS NOT NULL, seen_by, NULL),
  notified_by = iif(acked_at IS NULL AND shown_at IS NULL, seen_by, NULL)
WHERE seen_by IS NOT NULL;
