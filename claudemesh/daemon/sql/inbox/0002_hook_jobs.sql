-- Jobs of hooks: written with the message that raises them, removed after the run (docs/spec/daemon.md, Hooks).
CREATE TABLE hook_jobs (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  hook TEXT NOT NULL,
  event_id TEXT NOT NULL,
  -- The event as JSON; NULL when it is the message of that id.
  event TEXT,
  attempts INTEGER NOT NULL DEFAULT 0,
  UNIQUE (event_id, hook)
);
