-- The furthest state that the sender of a message asks to be told, NULL for none; and the state that it is yet to be
-- told, 0 for none (docs/spec/daemon.md, Receipts). `seen_by` is the session that brought the message into its state.
ALTER TABLE inbox ADD COLUMN receipt INTEGER;

ALTER TABLE inbox ADD COLUMN receipt_due INTEGER NOT NULL DEFAULT 0;

ALTER TABLE inbox ADD COLUMN notified_at INTEGER;

ALTER TABLE inbox ADD COLUMN seen_by TEXT;

CREATE INDEX inbox_receipt_due ON inbox (sender_member_id, seq) WHERE receipt_due > 0;

CREATE INDEX inbox_broker_message ON inbox (broker_message_id);

-- Messages that their session has not seen.
CREATE INDEX inbox_unseen ON inbox (for_session, seq)
WHERE for_session IS NOT NULL AND shown_at IS NULL AND acked_at IS NULL;
