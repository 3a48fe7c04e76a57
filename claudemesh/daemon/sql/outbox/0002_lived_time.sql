-- Ages and waits by the host-lived clock (runtime/lived.py), and a drain whose cost does not grow with the rows
-- that wait. `lived_ms` is the lived time of the acceptance; NULL in rows of the older schema, until the next start
-- gives them the lived time of that moment. `first_sent_broker_ms` is the broker's time when the row first left.
ALTER TABLE outbox ADD COLUMN lived_ms INTEGER;

ALTER TABLE outbox ADD COLUMN first_sent_broker_ms INTEGER;

-- The lived time from which a pending row may go out; 0: it is ready.
ALTER TABLE outbox RENAME COLUMN next_attempt_at TO due_lived_ms;

-- It held wall time.
UPDATE outbox SET due_lived_ms = 0 WHERE status IN ('pending', 'inflight');

DROP INDEX outbox_pending;

-- Everything pending in the order of acceptance (the rowid at the end of each index entry): pages, and the oldest.
CREATE INDEX outbox_pending ON outbox (status) WHERE status = 'pending';

-- The drain: by priority, then in the order of acceptance. Rows that wait for a retry are not in it.
CREATE INDEX outbox_ready ON outbox (priority) WHERE status = 'pending' AND due_lived_ms = 0;

-- Rows that wait for a retry, by the moment at which they are ready again.
CREATE INDEX outbox_waiting ON outbox (due_lived_ms) WHERE status = 'pending' AND due_lived_ms > 0;

-- Pending rows that were sent before: they die when the broker may have forgotten them.
CREATE INDEX outbox_sent ON outbox (first_sent_broker_ms)
WHERE status = 'pending' AND first_sent_broker_ms IS NOT NULL;
