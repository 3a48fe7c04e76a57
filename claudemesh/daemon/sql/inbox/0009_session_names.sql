-- Names of sessions, each with the session that has it (docs/spec/daemon.md, Sessions). The name of a session that has
-- ended stays with its directory.
CREATE TABLE session (
  name TEXT PRIMARY KEY,
  -- NULL while no live session has the name.
  session_id TEXT UNIQUE,
  client TEXT NOT NULL,
  client_version TEXT,
  client_session_id TEXT,
  cwd TEXT,
  pid INTEGER,
  pid_started INTEGER,
  reach TEXT NOT NULL,
  -- Ascends with each registration.
  used INTEGER NOT NULL
);

CREATE INDEX session_used ON session (used);

CREATE INDEX inbox_for_host ON inbox (seq)
WHERE for_session IS NULL AND shown_at IS NULL AND acked_at IS NULL AND body IS NOT NULL;
