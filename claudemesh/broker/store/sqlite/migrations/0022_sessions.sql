-- The sessions that a member tells others of, as JSON. Others see them, so a change makes a version of the list.
ALTER TABLE member ADD COLUMN sessions TEXT;

DROP TRIGGER member_altered;

CREATE TRIGGER member_altered AFTER UPDATE OF name, role, status, ed25519_pubkey, x25519_pubkey,
  x25519_signature, key_id, summary, presence_status, visible, sessions ON member
WHEN (OLD.name, OLD.role, OLD.status, OLD.ed25519_pubkey, OLD.x25519_pubkey, OLD.x25519_signature, OLD.key_id,
      OLD.summary, OLD.presence_status, OLD.visible, OLD.sessions)
  IS NOT (NEW.name, NEW.role, NEW.status, NEW.ed25519_pubkey, NEW.x25519_pubkey, NEW.x25519_signature, NEW.key_id,
          NEW.summary, NEW.presence_status, NEW.visible, NEW.sessions)
BEGIN
  UPDATE directory SET version = version + 1, token = lower(hex(randomblob(16))) WHERE mesh_id = NEW.mesh_id;
  UPDATE member SET changed_version = (SELECT version FROM directory WHERE mesh_id = NEW.mesh_id)
  WHERE id = NEW.id;
END;
