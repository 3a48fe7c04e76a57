-- Whether the session of a message was told that it waits. A session that ends takes this with it, `notified_at` stays.
ALTER TABLE inbox ADD COLUMN told INTEGER NOT NULL DEFAULT 0;

UPDATE inbox SET told = 1 WHERE notified_at IS NOT NULL AND shown_at IS NULL AND acked_at IS NULL;

-- Messages that their session was not told of.
CREATE INDEX inbox_untold ON inbox (for_session, seq)
WHERE for_session IS NOT NULL AND shown_at IS NULL AND acked_at IS NULL AND told = 0;

-- Messages that no session has seen, whichever they are for.
CREATE INDEX inbox_unseen_by_all ON inbox (seq) WHERE shown_at IS NULL AND acked_at IS NULL;
