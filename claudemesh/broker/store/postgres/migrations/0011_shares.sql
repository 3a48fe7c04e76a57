-- What each member takes up, so that one member cannot use up what belongs to all.
ALTER TABLE mesh.mesh
  ADD COLUMN stored_bytes bigint NOT NULL DEFAULT 137438953472 CHECK (stored_bytes >= 1),
  ADD COLUMN member_stored_bytes bigint NOT NULL DEFAULT 17179869184 CHECK (member_stored_bytes >= 1),
  ADD COLUMN member_topics integer NOT NULL DEFAULT 1000 CHECK (member_topics >= 0),
  ADD COLUMN member_subscriptions integer NOT NULL DEFAULT 10000 CHECK (member_subscriptions >= 0),
  ADD COLUMN member_invites integer NOT NULL DEFAULT 1000 CHECK (member_invites >= 0),
  ADD COLUMN audit_retention_days integer NOT NULL DEFAULT 365 CHECK (audit_retention_days >= 1),
  ADD COLUMN audit_events integer NOT NULL DEFAULT 100000 CHECK (audit_events >= 1);

-- When an event was written, by the lived clock; 0 in events of an older schema until they are stamped.
ALTER TABLE mesh.audit_event ADD COLUMN lived_ms bigint NOT NULL DEFAULT 0;

CREATE INDEX audit_event_unstamped ON mesh.audit_event (id) WHERE lived_ms = 0;

-- Bytes of the bodies of each member, without the changes that are not added yet.
CREATE TABLE mesh.stored_bytes (
  mesh_id uuid NOT NULL,
  member_id uuid NOT NULL,
  kind text NOT NULL CHECK (kind IN ('queue', 'topic')),
  bytes bigint NOT NULL,
  PRIMARY KEY (mesh_id, member_id, kind)
) WITH (fillfactor = 50);

-- What the statements that write and delete bodies add and take off. Rows are only inserted there, so that transactions
-- of one sender do not wait for one another; the count is read together with them, and adds them up then.
CREATE TABLE mesh.stored_change (
  mesh_id uuid NOT NULL,
  member_id uuid NOT NULL,
  kind text NOT NULL CHECK (kind IN ('queue', 'topic')),
  bytes bigint NOT NULL
);

CREATE INDEX stored_change_by_mesh ON mesh.stored_change (mesh_id);

INSERT INTO mesh.stored_bytes (mesh_id, member_id, kind, bytes)
SELECT mesh_id, sender_member_id, 'queue', sum(octet_length(envelope)) FROM mesh.message_queue GROUP BY 1, 2
UNION ALL
SELECT mesh_id, sender_member_id, 'topic', sum(octet_length(envelope)) FROM mesh.topic_message GROUP BY 1, 2;

CREATE FUNCTION mesh.count_stored() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO mesh.stored_change (mesh_id, member_id, kind, bytes)
  SELECT b.mesh_id, b.sender_member_id, TG_ARGV[0],
         CASE TG_OP WHEN 'INSERT' THEN 1 ELSE -1 END * sum(octet_length(b.envelope))
  FROM bodies AS b GROUP BY 1, 2;
  RETURN NULL;
END
$$;

CREATE TRIGGER message_queue_come AFTER INSERT ON mesh.message_queue REFERENCING NEW TABLE AS bodies
  FOR EACH STATEMENT EXECUTE FUNCTION mesh.count_stored('queue');

CREATE TRIGGER message_queue_gone AFTER DELETE ON mesh.message_queue REFERENCING OLD TABLE AS bodies
  FOR EACH STATEMENT EXECUTE FUNCTION mesh.count_stored('queue');

CREATE TRIGGER topic_message_come AFTER INSERT ON mesh.topic_message REFERENCING NEW TABLE AS bodies
  FOR EACH STATEMENT EXECUTE FUNCTION mesh.count_stored('topic');

CREATE TRIGGER topic_message_gone AFTER DELETE ON mesh.topic_message REFERENCING OLD TABLE AS bodies
  FOR EACH STATEMENT EXECUTE FUNCTION mesh.count_stored('topic');
