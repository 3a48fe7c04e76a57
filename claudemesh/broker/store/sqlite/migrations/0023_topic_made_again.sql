-- Epochs and wraps outlive their topic: posts that were accepted before its deletion are opened with them. A topic
-- that is made again under the name goes on counting, so that no number of an epoch has two keys.
DROP TRIGGER topic_key_departed;

DROP TRIGGER topic_key_revoked;

CREATE TABLE topic_epoch_of_name (
  mesh_id TEXT NOT NULL REFERENCES mesh (id) ON DELETE CASCADE,
  topic TEXT NOT NULL,
  key_epoch INTEGER NOT NULL,
  commitment TEXT NOT NULL,
  previous_commitment TEXT NOT NULL,
  created_by TEXT NOT NULL,
  signature BLOB NOT NULL,
  created_at INTEGER NOT NULL,
  made_by TEXT NOT NULL,
  made_lived_ms INTEGER NOT NULL,
  PRIMARY KEY (mesh_id, topic, key_epoch)
) WITHOUT ROWID;

INSERT INTO topic_epoch_of_name
SELECT mesh_id, topic, key_epoch, commitment, previous_commitment, created_by, signature, created_at, made_by,
  made_lived_ms
FROM topic_epoch;

CREATE TABLE topic_wrap_of_name (
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
  FOREIGN KEY (mesh_id, topic, key_epoch) REFERENCES topic_epoch_of_name (mesh_id, topic, key_epoch) ON DELETE CASCADE
) WITHOUT ROWID;

INSERT INTO topic_wrap_of_name
SELECT mesh_id, topic, key_epoch, recipient_member_id, recipient, wrapped_by, nonce, ciphertext, signature
FROM topic_wrap;

DROP TABLE topic_wrap;

DROP TABLE topic_epoch;

ALTER TABLE topic_epoch_of_name RENAME TO topic_epoch;

ALTER TABLE topic_wrap_of_name RENAME TO topic_wrap;

CREATE INDEX topic_epoch_maker ON topic_epoch (mesh_id, made_by, made_lived_ms);

CREATE INDEX topic_epoch_made ON topic_epoch (made_lived_ms);

CREATE INDEX topic_wrap_recipient ON topic_wrap (recipient_member_id);

CREATE TRIGGER topic_key_departed AFTER UPDATE OF status ON member
WHEN OLD.status = 'active' AND NEW.status <> 'active' BEGIN
  UPDATE topic SET rekey_wanted = 1, key_floor = iif(NEW.status = 'revoked', key_epoch, key_floor)
  WHERE mesh_id = NEW.mesh_id AND name IN (
    SELECT topic FROM topic_subscription WHERE member_id = NEW.id
    UNION SELECT topic FROM topic_wrap WHERE recipient_member_id = NEW.id);
END;

CREATE TRIGGER topic_key_revoked AFTER UPDATE OF state ON member_key
WHEN OLD.state <> 'revoked' AND NEW.state = 'revoked' BEGIN
  UPDATE topic SET rekey_wanted = 1, key_floor = key_epoch WHERE mesh_id = NEW.mesh_id AND name IN (
    SELECT topic FROM topic_subscription WHERE member_id = NEW.member_id
    UNION SELECT topic FROM topic_wrap WHERE recipient_member_id = NEW.member_id);
END;

CREATE TRIGGER topic_made_again AFTER INSERT ON topic
WHEN EXISTS (SELECT 1 FROM topic_epoch AS e WHERE e.mesh_id = NEW.mesh_id AND e.topic = NEW.name) BEGIN
  UPDATE topic SET rekey_wanted = 1, (key_epoch, key_floor) = (
    SELECT max(e.key_epoch), max(e.key_epoch) FROM topic_epoch AS e
    WHERE e.mesh_id = NEW.mesh_id AND e.topic = NEW.name)
  WHERE mesh_id = NEW.mesh_id AND name = NEW.name;
END;
