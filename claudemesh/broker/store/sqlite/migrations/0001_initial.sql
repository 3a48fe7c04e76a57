-- Everything a broker keeps (docs/spec/broker.md, Storage), in SQLite's nearest types:
-- UUIDs, ULIDs and keys as text, hashes as blobs, times as Unix milliseconds.
CREATE TABLE mesh (
  id TEXT PRIMARY KEY,
  slug TEXT NOT NULL UNIQUE,
  clone_concurrency_policy TEXT NOT NULL
    CHECK (clone_concurrency_policy IN ('prefer_newest', 'prefer_oldest', 'allow_concurrent')),
  dedupe_retention_mode TEXT NOT NULL CHECK (dedupe_retention_mode IN ('retention_scoped', 'permanent')),
  dedupe_retention_days INTEGER NOT NULL CHECK (dedupe_retention_days >= 7),
  message_retention_days INTEGER NOT NULL CHECK (message_retention_days >= 1),
  rate_limit_per_minute INTEGER NOT NULL CHECK (rate_limit_per_minute >= 1),
  created_at INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE member (
  id TEXT PRIMARY KEY,
  mesh_id TEXT NOT NULL REFERENCES mesh (id) ON DELETE CASCADE,
  name TEXT NOT NULL,
  role TEXT NOT NULL CHECK (role IN ('owner', 'admin', 'member')),
  status TEXT NOT NULL CHECK (status IN ('active', 'revoked', 'left')),
  ed25519_pubkey TEXT NOT NULL,
  x25519_pubkey TEXT NOT NULL,
  x25519_signature BLOB NOT NULL,
  key_id TEXT NOT NULL,
  ephemeral INTEGER NOT NULL,
  summary TEXT,
  presence_status TEXT,
  visible INTEGER NOT NULL DEFAULT 1,
  last_seen_at INTEGER,
  last_seen_host_fingerprint BLOB,
  created_at INTEGER NOT NULL
) WITHOUT ROWID;

CREATE UNIQUE INDEX member_name ON member (mesh_id, name COLLATE NOCASE);

CREATE TABLE member_key (
  key_id TEXT NOT NULL,
  mesh_id TEXT NOT NULL,
  member_id TEXT NOT NULL REFERENCES member (id) ON DELETE CASCADE,
  ed25519_pubkey TEXT NOT NULL,
  x25519_pubkey TEXT NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('current', 'rotated_out', 'revoked')),
  created_at INTEGER NOT NULL,
  rotated_out_at INTEGER,
  PRIMARY KEY (mesh_id, ed25519_pubkey)
) WITHOUT ROWID;

CREATE INDEX member_key_member ON member_key (member_id);

CREATE TABLE invite (
  id TEXT PRIMARY KEY,
  mesh_id TEXT NOT NULL REFERENCES mesh (id) ON DELETE CASCADE,
  role TEXT NOT NULL CHECK (role IN ('owner', 'admin', 'member')),
  created_by TEXT NOT NULL,
  expires_at INTEGER NOT NULL,
  max_uses INTEGER NOT NULL,
  used_count INTEGER NOT NULL DEFAULT 0 CHECK (used_count <= max_uses),
  revoked_at INTEGER
) WITHOUT ROWID;

CREATE INDEX invite_mesh ON invite (mesh_id);

CREATE TABLE topic (
  mesh_id TEXT NOT NULL REFERENCES mesh (id) ON DELETE CASCADE,
  name TEXT NOT NULL,
  mode TEXT NOT NULL CHECK (mode IN ('topic', 'queue')),
  created_by TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  PRIMARY KEY (mesh_id, name)
) WITHOUT ROWID;

CREATE TABLE topic_subscription (
  mesh_id TEXT NOT NULL,
  topic TEXT NOT NULL,
  member_id TEXT NOT NULL REFERENCES member (id) ON DELETE CASCADE,
  since INTEGER NOT NULL,
  PRIMARY KEY (mesh_id, topic, member_id)
) WITHOUT ROWID;

-- No reference to the message: this row outlives it.
CREATE TABLE client_message_dedupe (
  mesh_id TEXT NOT NULL REFERENCES mesh (id) ON DELETE CASCADE,
  client_message_id TEXT NOT NULL,
  broker_message_id TEXT NOT NULL,
  history_id INTEGER NOT NULL,
  request_fingerprint BLOB NOT NULL,
  destination_kind TEXT NOT NULL CHECK (destination_kind IN ('topic', 'dm', 'queue')),
  destination_ref TEXT NOT NULL,
  sender_member_id TEXT NOT NULL,
  first_seen_at INTEGER NOT NULL,
  expires_at INTEGER,
  history_available INTEGER NOT NULL DEFAULT 1,
  PRIMARY KEY (mesh_id, sender_member_id, client_message_id)
) WITHOUT ROWID;

CREATE INDEX client_message_dedupe_expiry ON client_message_dedupe (expires_at) WHERE expires_at IS NOT NULL;

CREATE TABLE topic_message (
  id TEXT PRIMARY KEY,
  mesh_id TEXT NOT NULL,
  client_message_id TEXT NOT NULL,
  topic TEXT NOT NULL,
  sender_member_id TEXT NOT NULL,
  envelope BLOB NOT NULL,
  created_at INTEGER NOT NULL
);

CREATE TABLE message_queue (
  id TEXT PRIMARY KEY,
  mesh_id TEXT NOT NULL,
  client_message_id TEXT NOT NULL,
  destination_kind TEXT NOT NULL,
  destination_ref TEXT NOT NULL,
  sender_member_id TEXT NOT NULL,
  envelope BLOB NOT NULL,
  created_at INTEGER NOT NULL
);

CREATE TABLE message_history (
  history_id INTEGER PRIMARY KEY AUTOINCREMENT,
  broker_message_id TEXT NOT NULL,
  mesh_id TEXT NOT NULL,
  destination_kind TEXT NOT NULL,
  destination_ref TEXT NOT NULL,
  sender_member_id TEXT NOT NULL,
  created_at INTEGER NOT NULL
);

CREATE INDEX message_history_message ON message_history (broker_message_id);

CREATE TABLE delivery_queue (
  delivery_id INTEGER PRIMARY KEY AUTOINCREMENT,
  broker_message_id TEXT NOT NULL,
  mesh_id TEXT NOT NULL,
  recipient_member_id TEXT NOT NULL,
  priority INTEGER NOT NULL,
  enqueued_at INTEGER NOT NULL
);

CREATE INDEX delivery_queue_due ON delivery_queue (recipient_member_id, priority, delivery_id);

CREATE TABLE mention_index (
  broker_message_id TEXT NOT NULL,
  mesh_id TEXT NOT NULL,
  mentioned_member_id TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  PRIMARY KEY (mesh_id, mentioned_member_id, broker_message_id)
) WITHOUT ROWID;

CREATE TABLE message_tombstone (
  broker_message_id TEXT PRIMARY KEY,
  mesh_id TEXT NOT NULL,
  deleted_at INTEGER NOT NULL,
  reason TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE presence (
  connection_id TEXT PRIMARY KEY,
  member_id TEXT NOT NULL,
  mesh_id TEXT NOT NULL,
  broker_id TEXT NOT NULL,
  connected_at INTEGER NOT NULL,
  lease_until INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE audit_event (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  mesh_id TEXT NOT NULL,
  kind TEXT NOT NULL,
  member_id TEXT,
  data TEXT NOT NULL,
  created_at INTEGER NOT NULL
);

CREATE INDEX audit_event_mesh ON audit_event (mesh_id, id);

-- Which incarnation of the data this is: daemons hear of a new one and offer their recent sends again.
CREATE TABLE epoch (epoch TEXT NOT NULL);

INSERT INTO epoch (epoch) VALUES (lower(hex(randomblob(16))));
