-- Token buckets for the mesh and for each member. The old default, which fitted no burst, becomes the new one.
UPDATE mesh SET rate_limit_per_minute = 120000 WHERE rate_limit_per_minute = 6000;

ALTER TABLE mesh ADD COLUMN member_rate_limit_per_minute INTEGER NOT NULL DEFAULT 30000
  CHECK (member_rate_limit_per_minute >= 1);

ALTER TABLE mesh ADD COLUMN member_bytes_per_minute INTEGER NOT NULL DEFAULT 268435456
  CHECK (member_bytes_per_minute >= 1);
