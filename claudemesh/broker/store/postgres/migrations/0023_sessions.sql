-- The sessions that a member tells others of, as JSON. Others see them, so a change makes a version of the list.
ALTER TABLE mesh.member ADD COLUMN sessions text;

DROP TRIGGER member_altered ON mesh.member;

CREATE TRIGGER member_altered BEFORE UPDATE ON mesh.member
FOR EACH ROW WHEN (
  (OLD.name, OLD.role, OLD.status, OLD.ed25519_pubkey, OLD.x25519_pubkey, OLD.x25519_signature, OLD.key_id,
   OLD.summary, OLD.presence_status, OLD.visible, OLD.sessions)
  IS DISTINCT FROM
  (NEW.name, NEW.role, NEW.status, NEW.ed25519_pubkey, NEW.x25519_pubkey, NEW.x25519_signature, NEW.key_id,
   NEW.summary, NEW.presence_status, NEW.visible, NEW.sessions))
EXECUTE FUNCTION mesh.version_member();
