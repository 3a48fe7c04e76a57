-- Topics that were deleted. A daemon that was away learns of it here, and does not take the topic for one that a
-- restore of the database has lost.
CREATE TABLE mesh.topic_deletion (
  mesh_id uuid NOT NULL REFERENCES mesh.mesh (id) ON DELETE CASCADE,
  name text COLLATE "C" NOT NULL,
  deleted_at timestamptz NOT NULL,
  PRIMARY KEY (mesh_id, name)
);
