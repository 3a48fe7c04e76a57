-- Sessions of a message, as its sender names them. `for_session` is the session of this host that the message is
-- for: the named one, or the one that a message for the host was given to. NULL while no session has it.
ALTER TABLE inbox ADD COLUMN from_session TEXT;

ALTER TABLE inbox ADD COLUMN to_session TEXT;

ALTER TABLE inbox ADD COLUMN for_session TEXT;

CREATE INDEX inbox_for_session ON inbox (for_session, seq) WHERE for_session IS NOT NULL;
