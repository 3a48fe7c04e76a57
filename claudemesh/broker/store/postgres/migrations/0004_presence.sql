-- Several brokers: what is left of a daemon's broken connection on another broker is known by its instance.
ALTER TABLE mesh.presence ADD COLUMN instance_id text COLLATE "C" NOT NULL DEFAULT '';

CREATE INDEX presence_member ON mesh.presence (member_id);

-- The reaper looks at ephemeral members only.
CREATE INDEX member_ephemeral ON mesh.member (created_at) WHERE ephemeral AND status = 'active';

CREATE INDEX presence_lease ON mesh.presence (lease_until);
