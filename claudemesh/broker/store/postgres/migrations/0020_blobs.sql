-- Blobs: encrypted files that members share.
CREATE TABLE mesh.blob (
  id text COLLATE "C" PRIMARY KEY,
  mesh_id uuid NOT NULL REFERENCES mesh.mesh (id) ON DELETE CASCADE,
  owner_member_id uuid NOT NULL,
  size bigint NOT NULL,
  sha256 bytea NOT NULL,
  -- Bytes from the beginning that are stored.
  received bigint NOT NULL DEFAULT 0,
  complete boolean NOT NULL DEFAULT false,
  attached boolean NOT NULL DEFAULT false,
  persistent boolean NOT NULL DEFAULT false,
  -- The lived time of the last progress, and of the completion afterwards.
  touched_lived bigint NOT NULL
);

-- One upload for each owner and content, and the bytes that members hold.
CREATE UNIQUE INDEX blob_content ON mesh.blob (mesh_id, owner_member_id, sha256, size);

-- The bytes of blobs. Encrypted bytes cannot be compressed.
CREATE TABLE mesh.blob_chunk (
  blob_id text COLLATE "C" NOT NULL REFERENCES mesh.blob (id) ON DELETE CASCADE,
  begins bigint NOT NULL,
  data bytea NOT NULL,
  PRIMARY KEY (blob_id, begins)
);
ALTER TABLE mesh.blob_chunk ALTER COLUMN data SET STORAGE EXTERNAL;

-- Members that the announcing messages went to, and members that have fetched the blob.
CREATE TABLE mesh.blob_recipient (
  blob_id text COLLATE "C" NOT NULL REFERENCES mesh.blob (id) ON DELETE CASCADE,
  member_id uuid NOT NULL,
  fetched_lived bigint,
  PRIMARY KEY (blob_id, member_id)
);

-- The key of tickets for uploads and downloads.
CREATE TABLE mesh.blob_ticket_key (
  one integer PRIMARY KEY CHECK (one = 1),
  key bytea NOT NULL
);
