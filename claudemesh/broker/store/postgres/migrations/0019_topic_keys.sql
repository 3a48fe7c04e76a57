-- Keys of topics and queues: the number of the present epoch, 0 before the first one, when it was made in lived
-- time, and whether the next one is wanted.
ALTER TABLE mesh.topic
  ADD COLUMN key_epoch integer NOT NULL DEFAULT 0,
  ADD COLUMN key_lived_ms bigint NOT NULL DEFAULT 0,
  ADD COLUMN rekey_wanted boolean NOT NULL DEFAULT false;

-- An epoch as its maker has signed it; `made_by` is the member that has registered it.
CREATE TABLE mesh.topic_epoch (
  mesh_id uuid NOT NULL,
  topic text COLLATE "C" NOT NULL,
  key_epoch integer NOT NULL,
  commitment text NOT NULL,
  previous_commitment text NOT NULL,
  created_by bytea NOT NULL,
  signature bytea NOT NULL,
  created_at timestamptz NOT NULL,
  made_by uuid NOT NULL,
  made_lived_ms bigint NOT NULL,
  PRIMARY KEY (mesh_id, topic, key_epoch),
  FOREIGN KEY (mesh_id, topic) REFERENCES mesh.topic (mesh_id, name) ON DELETE CASCADE
);

CREATE INDEX topic_epoch_maker ON mesh.topic_epoch (mesh_id, made_by, made_lived_ms);

-- The key of an epoch, sealed to one key of a member. A wrapper has one wrap for each.
CREATE TABLE mesh.topic_wrap (
  mesh_id uuid NOT NULL,
  topic text COLLATE "C" NOT NULL,
  key_epoch integer NOT NULL,
  recipient_member_id uuid NOT NULL REFERENCES mesh.member (id) ON DELETE CASCADE,
  recipient bytea NOT NULL,
  wrapped_by bytea NOT NULL,
  nonce bytea NOT NULL,
  ciphertext bytea NOT NULL,
  signature bytea NOT NULL,
  PRIMARY KEY (mesh_id, topic, key_epoch, recipient_member_id, recipient, wrapped_by),
  FOREIGN KEY (mesh_id, topic, key_epoch) REFERENCES mesh.topic_epoch (mesh_id, topic, key_epoch) ON DELETE CASCADE
);

CREATE INDEX topic_wrap_recipient ON mesh.topic_wrap (recipient_member_id);

-- The epoch that a body is sealed under; NULL for a dm and for an unsealed body.
ALTER TABLE mesh.topic_message ADD COLUMN key_epoch integer;

ALTER TABLE mesh.message_queue ADD COLUMN key_epoch integer;

CREATE INDEX topic_message_epoch ON mesh.topic_message (mesh_id, topic, key_epoch) WHERE key_epoch IS NOT NULL;

CREATE INDEX message_queue_epoch ON mesh.message_queue (mesh_id, destination_ref, key_epoch)
WHERE key_epoch IS NOT NULL;

-- The next epoch is wanted as soon as a member should not read on. Triggers mark it, so that no statement forgets it.
-- Each marks a topic that is marked already, too: it waits for the maker of an epoch that is about to clear the mark.
CREATE FUNCTION mesh.want_topic_key() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  UPDATE mesh.topic SET rekey_wanted = true
  WHERE (mesh_id, name) IN (
    SELECT g.mesh_id, g.topic FROM gone AS g JOIN mesh.member AS m ON m.id = g.member_id WHERE m.status = 'active');
  RETURN NULL;
END
$$;

CREATE TRIGGER topic_key_unsubscribed AFTER DELETE ON mesh.topic_subscription
REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION mesh.want_topic_key();

CREATE FUNCTION mesh.want_topic_keys(of_mesh uuid, of_member uuid) RETURNS void LANGUAGE sql AS $$
  UPDATE mesh.topic SET rekey_wanted = true
  WHERE mesh_id = of_mesh AND name IN (
    SELECT s.topic FROM mesh.topic_subscription AS s WHERE s.member_id = of_member
    UNION SELECT w.topic FROM mesh.topic_wrap AS w WHERE w.recipient_member_id = of_member)
$$;

CREATE FUNCTION mesh.want_topic_keys_of_member() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM mesh.want_topic_keys(NEW.mesh_id, NEW.id);
  RETURN NULL;
END
$$;

CREATE TRIGGER topic_key_departed AFTER UPDATE ON mesh.member
FOR EACH ROW WHEN (OLD.status = 'active' AND NEW.status <> 'active')
EXECUTE FUNCTION mesh.want_topic_keys_of_member();

CREATE FUNCTION mesh.want_topic_keys_of_key() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM mesh.want_topic_keys(NEW.mesh_id, NEW.member_id);
  RETURN NULL;
END
$$;

CREATE TRIGGER topic_key_revoked AFTER UPDATE ON mesh.member_key
FOR EACH ROW WHEN (OLD.state <> 'revoked' AND NEW.state = 'revoked')
EXECUTE FUNCTION mesh.want_topic_keys_of_key();

-- Bodies carry their epoch. `mesh.accept_v2` stays for brokers of the release before.
-- include: functions/accept_v3.sql
