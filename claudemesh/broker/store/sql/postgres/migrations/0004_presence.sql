-- Several brokers: what is left of a daemon's broken connection on another broker is known by its instance.
ALTER TABLE mesh.presence ADD COLUMN instance_id text COLLATE "C" NOT NULL DEFAULT '';

CREATE INDEX presence_member ON mesh.presence (member_id);

CREATE INDEX presence_lease ON mesh.presence (lease_until);
