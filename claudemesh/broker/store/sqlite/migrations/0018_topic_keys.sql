-- Keys of topics and queues: the number of the present epoch, 0 before the first one, when it was made in lived
-- time, and whether the next one is wanted.
ALTER TABLE topic ADD COLUMN key_epoch INTEGER NOT NULL DEFAULT 0;

ALTER TABLE topic ADD COLUMN key_lived_ms INTEGER NOT NULL DEFAULT 0;

ALTER TABLE topic ADD COLUMN rekey_wanted INTEGER NOT NULL DEFAULT 0;

-- An epoch as its maker has signed it; `made_by` is the member that has registered it.
CREATE TABLE topic_epoch (
  mesh_id TEXT NOT NULL,
  topic TEXT NOT NULL,
  key_epoch INTEGER NOT NULL,
  commitment TEXT NOT NULL,
  previous_commitment TEXT NOT NULL,
  created_by TEXT NOT NULL,
  signature BLOB NOT NULL,
  created_at INTEGER NOT NULL,
  made_by TEXT NOT NULL,
  made_lived_ms INTEGER NOT NULL,
  PRIMARY KEY (mesh_id, topic, key_epoch),
  FOREIGN KEY (mesh_id, topic) REFERENCES topic (mesh_id, name) ON DELETE CASCADE
) WITHOUT ROWID;

CREATE INDEX topic_epoch_maker ON topic_epoch (mesh_id, made_by, made_lived_ms);

-- The key of an epoch, sealed to one key of a member. A wrapper has one wrap for each.
CREATE TABLE topic_wrap (
  mesh_id TEXT NOT NULL,
  topic TEXT NOT NULL,
  key_epoch INTEGER NOT NULL,
  recipient_member_id TEXT NOT NULL REFERENCES member (id) ON DELETE CASCADE,
  recipient TEXT NOT NULL,
  wrapped_by TEXT NOT NULL,
  nonce BLOB NOT NULL,
  ciphertext BLOB NOT NULL,
  signature BLOB NOT NULL,
  PRIMARY KEY (mesh_id, topic, key_epoch, recipient_member_id, recipient, wrapped_by),
  FOREIGN KEY (mesh_id, topic, key_epoch) REFERENCES topic_epoch (mesh_id, topic, key_epoch) ON DELETE CASCADE
) WITHOUT ROWID;

CREATE INDEX topic_wrap_recipient ON topic_wrap (recipient_member_id);

-- The epoch that a body is sealed under; NULL for a dm and for an unsealed body.
ALTER TABLE topic_message ADD COLUMN key_epoch INTEGER;

ALTER TABLE message_queue ADD COLUMN key_epoch INTEGER;

CREATE INDEX topic_message_epoch ON topic_message (mesh_id, topic, key_epoch) WHERE key_epoch IS NOT NULL;

CREATE INDEX message_queue_epoch ON message_queue (mesh_id, destination_ref, key_epoch) WHERE key_epoch IS NOT NULL;

-- The next epoch is wanted as soon as a member should not read on. Triggers mark it, so that no statement forgets it.
CREATE TRIGGER topic_key_unsubscribed AFTER DELETE ON topic_subscription
WHEN (SELECT status FROM member WHERE id = OLD.member_id) = 'active' BEGIN
  UPDATE topic SET rekey_wanted = 1 WHERE mesh_id = OLD.mesh_id AND name = OLD.topic;
END;

CREATE TRIGGER topic_key_departed AFTER UPDATE OF status ON member
WHEN OLD.status = 'active' AND NEW.status <> 'active' BEGIN
  UPDATE topic SET rekey_wanted = 1 WHERE mesh_id = NEW.mesh_id AND name IN (
    SELECT topic FROM topic_subscription WHERE member_id = NEW.id
    UNION SELECT topic FROM topic_wrap WHERE recipient_member_id = NEW.id);
END;

CREATE TRIGGER topic_key_revoked AFTER UPDATE OF state ON member_key
WHEN OLD.state <> 'revoked' AND NEW.state = 'revoked' BEGIN
  UPDATE topic SET rekey_wanted = 1 WHERE mesh_id = NEW.mesh_id AND name IN (
    SELECT topic FROM topic_subscription WHERE member_id = NEW.member_id
    UNION SELECT topic FROM topic_wrap WHERE recipient_member_id = NEW.member_id);
END;
