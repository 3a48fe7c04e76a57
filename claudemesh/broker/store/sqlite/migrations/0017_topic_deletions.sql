-- Topics that were deleted. A daemon that was away learns of it here, and does not take the topic for one that a
-- restore of the database has lost.
CREATE TABLE topic_deletion (
  mesh_id TEXT NOT NULL REFERENCES mesh (id) ON DELETE CASCADE,
  name TEXT NOT NULL,
  deleted_at INTEGER NOT NULL,
  PRIMARY KEY (mesh_id, name)
) WITHOUT ROWID;
