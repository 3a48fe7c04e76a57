-- The signed statement by which a member left a key, as JSON, and the number of rotations before the key.
ALTER TABLE member_key ADD COLUMN rotation TEXT;

ALTER TABLE member_key ADD COLUMN position INTEGER NOT NULL DEFAULT 0;
