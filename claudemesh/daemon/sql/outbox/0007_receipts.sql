-- The receipt that a send asks for: 1 delivered, 3 shown, 4 acked, NULL none (docs/spec/daemon.md, Receipts).
-- `recipient` is the key of the member that a dm was sent to.
ALTER TABLE outbox ADD COLUMN receipt INTEGER;

ALTER TABLE outbox ADD COLUMN recipient TEXT;

-- States of a send at each recipient that has told them. The times are those of the recipient's wall clock.
CREATE TABLE receipt (
  row_id TEXT NOT NULL,
  member_id TEXT NOT NULL,
  -- Name at the last receipt.
  name TEXT NOT NULL,
  state INTEGER NOT NULL,
  delivered_at INTEGER,
  notified_at INTEGER,
  shown_at INTEGER,
  acked_at INTEGER,
  session TEXT,
  PRIMARY KEY (row_id, member_id)
) WITHOUT ROWID;
