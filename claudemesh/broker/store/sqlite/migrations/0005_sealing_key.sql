-- A join looks up whether a member of the mesh has its x25519 key already.
CREATE INDEX member_key_sealing ON member_key (mesh_id, x25519_pubkey);
