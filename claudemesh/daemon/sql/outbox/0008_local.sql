-- Whether a send was put into the inbox of this host, for a session of its own (docs/spec/daemon.md, Local sends). Such a
-- row is done from the beginning, and the broker knows nothing of it.
ALTER TABLE outbox ADD COLUMN local INTEGER NOT NULL DEFAULT 0;
