-- Token buckets for the mesh and for each member. The old default, which fitted no burst, becomes the new one.
UPDATE mesh.mesh SET rate_limit_per_minute = 120000 WHERE rate_limit_per_minute = 6000;

ALTER TABLE mesh.mesh
  ALTER COLUMN rate_limit_per_minute SET DEFAULT 120000,
  ADD COLUMN member_rate_limit_per_minute integer NOT NULL DEFAULT 30000
    CHECK (member_rate_limit_per_minute >= 1),
  ADD COLUMN member_bytes_per_minute bigint NOT NULL DEFAULT 268435456 CHECK (member_bytes_per_minute >= 1);
