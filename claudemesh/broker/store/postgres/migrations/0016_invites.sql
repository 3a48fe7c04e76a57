-- The id of an invite is chosen by its inviter, so it belongs to a mesh: the member of another mesh can neither
-- take nor block it.
ALTER TABLE mesh.invite DROP CONSTRAINT invite_pkey;

ALTER TABLE mesh.invite ADD CONSTRAINT invite_pkey PRIMARY KEY (mesh_id, id);

DROP INDEX mesh.invite_mesh;
