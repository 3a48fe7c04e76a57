-- An x25519 key is one member's. Older versions did not look: rows that repeat the key of an earlier row are marked,
-- stand outside of the index, and daemons refuse the members that they belong to.
ALTER TABLE mesh.member_key ADD COLUMN repeats_sealing_key boolean NOT NULL DEFAULT false;

UPDATE mesh.member_key AS k SET repeats_sealing_key = true WHERE EXISTS (
  SELECT 1 FROM mesh.member_key AS earlier
  WHERE earlier.mesh_id = k.mesh_id AND earlier.x25519_pubkey = k.x25519_pubkey
    AND (earlier.created_at, earlier.ed25519_pubkey) < (k.created_at, k.ed25519_pubkey));

CREATE UNIQUE INDEX member_key_sealing_unique ON mesh.member_key (mesh_id, x25519_pubkey) WHERE NOT repeats_sealing_key;
