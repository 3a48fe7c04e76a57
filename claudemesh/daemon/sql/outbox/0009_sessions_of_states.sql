-- The session that brought a send into each of its states at a recipient, in the place of the one of its furthest state.
ALTER TABLE receipt ADD COLUMN notified_by TEXT;

ALTER TABLE receipt ADD COLUMN shown_by TEXT;

ALTER TABLE receipt ADD COLUMN acked_by TEXT;

UPDATE receipt SET notified_by = iif(state = 2, session, NULL), shown_by = iif(state = 3, session, NULL),
  acked_by = iif(state = 4, session, NULL)
WHERE session IS NOT NULL;

ALTER TABLE receipt DROP COLUMN session;
