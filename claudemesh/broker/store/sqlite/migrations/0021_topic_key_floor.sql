-- The epochs of a topic up to `key_floor` are not accepted any more: a member that may hold their keys was revoked.
ALTER TABLE topic ADD COLUMN key_floor INTEGER NOT NULL DEFAULT 0;

DROP TRIGGER topic_key_departed;

CREATE TRIGGER topic_key_departed AFTER UPDATE OF status ON member
WHEN OLD.status = 'active' AND NEW.status <> 'active' BEGIN
  UPDATE topic SET rekey_wanted = 1, key_floor = iif(NEW.status = 'revoked', key_epoch, key_floor)
  WHERE mesh_id = NEW.mesh_id AND name IN (
    SELECT topic FROM topic_subscription WHERE member_id = NEW.id
    UNION SELECT topic FROM topic_wrap WHERE recipient_member_id = NEW.id);
END;

DROP TRIGGER topic_key_revoked;

CREATE TRIGGER topic_key_revoked AFTER UPDATE OF state ON member_key
WHEN OLD.state <> 'revoked' AND NEW.state = 'revoked' BEGIN
  UPDATE topic SET rekey_wanted = 1, key_floor = key_epoch WHERE mesh_id = NEW.mesh_id AND name IN (
    SELECT topic FROM topic_subscription WHERE member_id = NEW.member_id
    UNION SELECT topic FROM topic_wrap WHERE recipient_member_id = NEW.member_id);
END;

-- Mentions stand in the signed envelope, and nothing selects messages by them.
DROP TABLE mention_index;
