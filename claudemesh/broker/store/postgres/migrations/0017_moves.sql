-- The signed statement of a mesh's latest move to another address, as JSON.
CREATE TABLE mesh.mesh_move (
  mesh_id uuid PRIMARY KEY REFERENCES mesh.mesh (id) ON DELETE CASCADE,
  at_ms bigint NOT NULL,
  statement text NOT NULL
);
