-- Sessions that were told of a message for the host beside the session that has it: with `[sessions]
-- deliver_host_messages = "all"` each is told by itself.
CREATE TABLE inbox_told (
  session TEXT NOT NULL,
  inbox_id TEXT NOT NULL REFERENCES inbox (id) ON DELETE CASCADE,
  PRIMARY KEY (session, inbox_id)
) WITHOUT ROWID;

CREATE INDEX inbox_told_message ON inbox_told (inbox_id);
