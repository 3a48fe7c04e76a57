-- Time that this database has been in use, so that no retention goes by a wall clock (broker/timekeeper.py).
CREATE TABLE lived_clock (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  lived_ms INTEGER NOT NULL,
  boot_id TEXT,
  boot_ms INTEGER NOT NULL
);

-- Every message up to `history_id` had been accepted when the lived clock showed `lived_ms`.
CREATE TABLE history_horizon (lived_ms INTEGER PRIMARY KEY, history_id INTEGER NOT NULL);

-- The last run of each job; `finished_at` is wall time, for showing.
CREATE TABLE job_run (
  job TEXT PRIMARY KEY,
  lived_ms INTEGER NOT NULL,
  finished_at INTEGER NOT NULL,
  count INTEGER NOT NULL,
  found INTEGER NOT NULL
) WITHOUT ROWID;

-- Ids whose message has been swept, in the order of acceptance: the dedupe sweep reads them.
CREATE INDEX client_message_dedupe_swept ON client_message_dedupe (mesh_id, history_id)
  WHERE NOT history_available AND expires_at IS NOT NULL;
