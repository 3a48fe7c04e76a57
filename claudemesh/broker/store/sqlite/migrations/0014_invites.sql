-- The id of an invite is chosen by its inviter, so it belongs to a mesh: the member of another mesh can neither
-- take nor block it.
CREATE TABLE invite_of_mesh (
  id TEXT NOT NULL,
  mesh_id TEXT NOT NULL REFERENCES mesh (id) ON DELETE CASCADE,
  role TEXT NOT NULL CHECK (role IN ('owner', 'admin', 'member')),
  created_by TEXT NOT NULL,
  expires_at INTEGER NOT NULL,
  max_uses INTEGER NOT NULL,
  used_count INTEGER NOT NULL DEFAULT 0 CHECK (used_count <= max_uses),
  revoked_at INTEGER,
  PRIMARY KEY (mesh_id, id)
) WITHOUT ROWID;

INSERT INTO invite_of_mesh (id, mesh_id, role, created_by, expires_at, max_uses, used_count, revoked_at)
SELECT id, mesh_id, role, created_by, expires_at, max_uses, used_count, revoked_at FROM invite;

DROP TABLE invite;

ALTER TABLE invite_of_mesh RENAME TO invite;
