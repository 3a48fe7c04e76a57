-- The signed statement by which a member left a key, as JSON, and the number of rotations before the key.
ALTER TABLE mesh.member_key
  ADD COLUMN rotation text,
  ADD COLUMN position integer NOT NULL DEFAULT 0;
