-- Whether the message mentions this member. Messages that an earlier version stored do not say it.
ALTER TABLE inbox ADD COLUMN mentioned INTEGER NOT NULL DEFAULT 0;

CREATE INDEX inbox_mentioned ON inbox (seq) WHERE mentioned;
