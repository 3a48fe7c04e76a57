-- Files that this host shares, from acceptance until their message is at the broker (docs/spec/daemon.md, Shared files).
CREATE TABLE shared (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  file_id TEXT NOT NULL UNIQUE,
  client_message_id TEXT NOT NULL UNIQUE,
  request_fingerprint BLOB NOT NULL,
  -- The announcement as JSON, sealed only when the blob is at the broker: its content names the blob.
  request TEXT NOT NULL,
  persistent INTEGER NOT NULL,
  name TEXT NOT NULL,
  media_type TEXT,
  size INTEGER NOT NULL,
  sha256 TEXT NOT NULL,
  blob_size INTEGER NOT NULL,
  blob_sha256 TEXT NOT NULL,
  chunk_bytes INTEGER NOT NULL,
  -- Empty once the message is at the broker.
  key BLOB NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('uploading', 'announcing', 'attaching', 'shared', 'failed', 'deleted')),
  blob_id TEXT,
  error TEXT,
  created_at INTEGER NOT NULL
);

CREATE INDEX shared_open ON shared (number) WHERE state IN ('uploading', 'announcing', 'attaching');
