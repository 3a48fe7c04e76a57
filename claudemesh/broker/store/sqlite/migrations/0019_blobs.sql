-- Blobs: encrypted files that members share. Their bytes are files of the data directory.
CREATE TABLE blob (
  id TEXT PRIMARY KEY,
  mesh_id TEXT NOT NULL REFERENCES mesh (id) ON DELETE CASCADE,
  owner_member_id TEXT NOT NULL,
  size INTEGER NOT NULL,
  sha256 BLOB NOT NULL,
  -- Bytes from the beginning that are on the disk.
  received INTEGER NOT NULL DEFAULT 0,
  complete INTEGER NOT NULL DEFAULT 0,
  attached INTEGER NOT NULL DEFAULT 0,
  persistent INTEGER NOT NULL DEFAULT 0,
  -- The lived time of the last progress, and of the completion afterwards.
  touched_lived INTEGER NOT NULL
) WITHOUT ROWID;

-- One upload for each owner and content, and the bytes that members hold.
CREATE UNIQUE INDEX blob_content ON blob (mesh_id, owner_member_id, sha256, size);

-- Members that the announcing messages went to, and members that have fetched the blob.
CREATE TABLE blob_recipient (
  blob_id TEXT NOT NULL REFERENCES blob (id) ON DELETE CASCADE,
  member_id TEXT NOT NULL,
  fetched_lived INTEGER,
  PRIMARY KEY (blob_id, member_id)
) WITHOUT ROWID;

-- The key of tickets for uploads and downloads.
CREATE TABLE blob_ticket_key (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  key BLOB NOT NULL
);
