-- The signed statement of a mesh's latest move to another address, as JSON.
CREATE TABLE mesh_move (
  mesh_id TEXT PRIMARY KEY REFERENCES mesh (id) ON DELETE CASCADE,
  at_ms INTEGER NOT NULL,
  statement TEXT NOT NULL
) WITHOUT ROWID;
