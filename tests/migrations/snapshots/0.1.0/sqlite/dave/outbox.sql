BEGIN TRANSACTION;
CREATE TABLE outbox (
  id TEXT PRIMARY KEY,
  client_message_id TEXT NOT NULL UNIQUE,
  request_fingerprint BLOB NOT NULL,
  payload BLOB NOT NULL,
  enqueued_at INTEGER NOT NULL,
  attempts INTEGER NOT NULL DEFAULT 0,
  next_attempt_at INTEGER NOT NULL,
  status TEXT NOT NULL CHECK (status IN ('pending', 'inflight', 'done', 'dead', 'aborted')),
  last_error TEXT,
  delivered_at INTEGER,
  broker_message_id TEXT,
  history_id INTEGER,
  aborted_at INTEGER,
  aborted_by TEXT,
  superseded_by TEXT,
  priority INTEGER NOT NULL
);
CREATE INDEX outbox_pending ON outbox (priority) WHERE status = 'pending';
CREATE INDEX outbox_inflight ON outbox (status) WHERE status = 'inflight';
CREATE INDEX outbox_dead ON outbox (status) WHERE status = 'dead';
CREATE INDEX outbox_aborted ON outbox (aborted_at) WHERE status = 'aborted';
CREATE INDEX outbox_done_payload ON outbox (delivered_at) WHERE status = 'done' AND payload <> x'';
COMMIT;
PRAGMA user_version = 1;
