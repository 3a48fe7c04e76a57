-- What each member takes up, so that one member cannot use up what belongs to all.
ALTER TABLE mesh ADD COLUMN stored_bytes INTEGER NOT NULL DEFAULT 137438953472 CHECK (stored_bytes >= 1);

ALTER TABLE mesh ADD COLUMN member_stored_bytes INTEGER NOT NULL DEFAULT 17179869184
  CHECK (member_stored_bytes >= 1);

ALTER TABLE mesh ADD COLUMN member_topics INTEGER NOT NULL DEFAULT 1000 CHECK (member_topics >= 0);

ALTER TABLE mesh ADD COLUMN member_subscriptions INTEGER NOT NULL DEFAULT 10000
  CHECK (member_subscriptions >= 0);

ALTER TABLE mesh ADD COLUMN member_invites INTEGER NOT NULL DEFAULT 1000 CHECK (member_invites >= 0);

ALTER TABLE mesh ADD COLUMN audit_retention_days INTEGER NOT NULL DEFAULT 365 CHECK (audit_retention_days >= 1);

ALTER TABLE mesh ADD COLUMN audit_events INTEGER NOT NULL DEFAULT 100000 CHECK (audit_events >= 1);

-- When an event was written, by the lived clock; 0 in events of an older schema until they are stamped.
ALTER TABLE audit_event ADD COLUMN lived_ms INTEGER NOT NULL DEFAULT 0;

CREATE INDEX audit_event_unstamped ON audit_event (id) WHERE lived_ms = 0;

-- Bytes of the bodies of each member: accepting adds them, and whatever deletes a body takes them off.
CREATE TABLE stored_bytes (
  mesh_id TEXT NOT NULL,
  member_id TEXT NOT NULL,
  kind TEXT NOT NULL CHECK (kind IN ('queue', 'topic')),
  bytes INTEGER NOT NULL,
  PRIMARY KEY (mesh_id, member_id, kind)
) WITHOUT ROWID;

INSERT INTO stored_bytes (mesh_id, member_id, kind, bytes)
SELECT mesh_id, sender_member_id, 'queue', sum(length(envelope)) FROM message_queue GROUP BY 1, 2;

INSERT INTO stored_bytes (mesh_id, member_id, kind, bytes)
SELECT mesh_id, sender_member_id, 'topic', sum(length(envelope)) FROM topic_message GROUP BY 1, 2;

CREATE TRIGGER message_queue_gone AFTER DELETE ON message_queue BEGIN
  UPDATE stored_bytes SET bytes = bytes - length(OLD.envelope)
  WHERE mesh_id = OLD.mesh_id AND member_id = OLD.sender_member_id AND kind = 'queue';
END;

CREATE TRIGGER topic_message_gone AFTER DELETE ON topic_message BEGIN
  UPDATE stored_bytes SET bytes = bytes - length(OLD.envelope)
  WHERE mesh_id = OLD.mesh_id AND member_id = OLD.sender_member_id AND kind = 'topic';
END;
