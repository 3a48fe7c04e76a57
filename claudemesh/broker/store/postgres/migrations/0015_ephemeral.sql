-- The lived time at which an ephemeral member ends, also while it is connected; NULL: its lease alone decides.
ALTER TABLE mesh.member ADD COLUMN ends_lived_ms bigint;

-- Ephemeral members that have left, whose rows the reaper deletes.
CREATE INDEX member_ephemeral_left ON mesh.member (mesh_id, changed_version) WHERE ephemeral AND status = 'left';
