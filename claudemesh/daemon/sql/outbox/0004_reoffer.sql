-- What a broker forgot when its database was restored (outbox/reoffer.py).
--
-- One row from the moment that a restore is noticed. `scanned` turns 1 when every done send was asked about;
-- `noticed_ms` is host-lived time.
CREATE TABLE broker_restore (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  noticed_ms INTEGER NOT NULL,
  scanned INTEGER NOT NULL DEFAULT 0,
  forgotten INTEGER NOT NULL DEFAULT 0,
  lost INTEGER NOT NULL DEFAULT 0
);

-- Done sends that are to be offered again, in the order in which the broker had accepted them.
CREATE TABLE reoffer (
  row_id TEXT PRIMARY KEY,
  position INTEGER NOT NULL,
  error TEXT
) WITHOUT ROWID;

CREATE INDEX reoffer_position ON reoffer (position);

-- Done sends by the broker's order of acceptance, without those that it is known to have lost.
CREATE INDEX outbox_done ON outbox (history_id) WHERE status = 'done' AND last_error IS NULL;
