-- Files that a message announces: a JSON array with the keys that open them. NULL when there are none.
ALTER TABLE inbox ADD COLUMN attachments TEXT;

-- Announced files by their id, in the order of arrival. `fetched_at` is the wall time of the first download.
CREATE TABLE inbox_file (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  file_id TEXT NOT NULL,
  inbox_id TEXT NOT NULL REFERENCES inbox (id) ON DELETE CASCADE,
  fetched_at INTEGER,
  UNIQUE (file_id, inbox_id)
);

CREATE INDEX inbox_file_message ON inbox_file (inbox_id);
