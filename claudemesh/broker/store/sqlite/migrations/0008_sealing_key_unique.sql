-- An x25519 key is one member's. Older versions did not look: rows that repeat the key of an earlier row are marked,
-- stand outside of the index, and daemons refuse the members that they belong to.
ALTER TABLE member_key ADD COLUMN repeats_sealing_key INTEGER NOT NULL DEFAULT 0;

UPDATE member_key SET repeats_sealing_key = 1 WHERE EXISTS (
  SELECT 1 FROM member_key AS earlier
  WHERE earlier.mesh_id = member_key.mesh_id AND earlier.x25519_pubkey = member_key.x25519_pubkey
    AND (earlier.created_at, earlier.ed25519_pubkey) < (member_key.created_at, member_key.ed25519_pubkey));

CREATE UNIQUE INDEX member_key_sealing_unique ON member_key (mesh_id, x25519_pubkey) WHERE repeats_sealing_key = 0;
