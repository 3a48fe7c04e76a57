-- Time that this database has been in use, so that no retention goes by a wall clock (broker/timekeeper.py).
CREATE TABLE mesh.lived_clock (
  one smallint PRIMARY KEY CHECK (one = 1),
  lived_ms bigint NOT NULL,
  boot_id text COLLATE "C",
  boot_ms bigint NOT NULL
);

-- Every message up to `history_id` had been accepted when the lived clock showed `lived_ms`.
CREATE TABLE mesh.history_horizon (lived_ms bigint PRIMARY KEY, history_id bigint NOT NULL);

-- The last run of each job; `finished_at` is wall time, for showing.
CREATE TABLE mesh.job_run (
  job text COLLATE "C" PRIMARY KEY,
  lived_ms bigint NOT NULL,
  finished_at timestamptz NOT NULL,
  count bigint NOT NULL,
  found bigint NOT NULL
);

-- Ids whose message has been swept, in the order of acceptance: the dedupe sweep reads them.
CREATE INDEX client_message_dedupe_swept ON mesh.client_message_dedupe (mesh_id, history_id)
  WHERE NOT history_available AND expires_at IS NOT NULL;
