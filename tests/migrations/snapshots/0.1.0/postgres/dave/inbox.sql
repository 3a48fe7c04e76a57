BEGIN TRANSACTION;
CREATE TABLE hook_jobs (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  hook TEXT NOT NULL,
  event_id TEXT NOT NULL,
  -- The event as JSON; NULL when it is the message of that id.
  event TEXT,
  attempts INTEGER NOT NULL DEFAULT 0,
  UNIQUE (event_id, hook)
);
CREATE TABLE inbox (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  client_message_id TEXT NOT NULL,
  sender_member_id TEXT NOT NULL,
  broker_message_id TEXT,
  history_id INTEGER,
  mesh TEXT NOT NULL,
  kind TEXT NOT NULL,
  topic TEXT,
  sender_pubkey TEXT NOT NULL,
  sender_name TEXT NOT NULL,
  body TEXT,
  meta TEXT,
  priority TEXT NOT NULL,
  received_at INTEGER NOT NULL,
  reply_to_id TEXT,
  shown_at INTEGER,
  acked_at INTEGER,
  UNIQUE (sender_member_id, client_message_id)
);
CREATE TABLE inbox_sealed (
  id TEXT PRIMARY KEY REFERENCES inbox (id) ON DELETE CASCADE,
  envelope BLOB NOT NULL
);
CREATE TABLE inbox_seen (
  sender_member_id TEXT NOT NULL,
  client_message_id TEXT NOT NULL,
  seen_at INTEGER NOT NULL,
  PRIMARY KEY (sender_member_id, client_message_id)
) WITHOUT ROWID;
CREATE INDEX inbox_received ON inbox (received_at);
CREATE INDEX inbox_topic ON inbox (topic) WHERE topic IS NOT NULL;
CREATE INDEX inbox_sender ON inbox (sender_name COLLATE NOCASE);
CREATE INDEX inbox_unread ON inbox (seq) WHERE acked_at IS NULL;
CREATE INDEX inbox_seen_age ON inbox_seen (seen_at);
DELETE FROM "sqlite_sequence";
COMMIT;
PRAGMA user_version = 2;
