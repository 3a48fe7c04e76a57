-- The lived time at which an ephemeral member ends, also while it is connected; NULL: its lease alone decides.
ALTER TABLE member ADD COLUMN ends_lived_ms INTEGER;

-- Ephemeral members, which the reaper reads: persistent ones cost it nothing.
CREATE INDEX member_ephemeral ON member (status, created_at) WHERE ephemeral = 1;
