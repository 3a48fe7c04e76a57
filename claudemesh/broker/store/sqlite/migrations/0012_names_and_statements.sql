-- A name belongs to an active member: leaving and being revoked release it.
DROP INDEX member_name;

CREATE UNIQUE INDEX member_name_active ON member (mesh_id, name COLLATE NOCASE) WHERE status = 'active';

-- Pages of all members by name; a name may have had several.
CREATE INDEX member_name_order ON member (mesh_id, name COLLATE NOCASE, id);

-- The latest statement of each kind that an entry of the member list carries, as its signer gave it.
CREATE TABLE member_statement (
  mesh_id TEXT NOT NULL,
  member_id TEXT NOT NULL REFERENCES member (id) ON DELETE CASCADE,
  kind TEXT NOT NULL,
  subject TEXT NOT NULL,
  at_ms INTEGER NOT NULL,
  body TEXT NOT NULL,
  PRIMARY KEY (member_id, kind, subject)
) WITHOUT ROWID;

-- Statements are part of what others see of a member.
CREATE TRIGGER member_statement_made AFTER INSERT ON member_statement BEGIN
  UPDATE directory SET version = version + 1, token = lower(hex(randomblob(16))) WHERE mesh_id = NEW.mesh_id;
  UPDATE member SET changed_version = (SELECT version FROM directory WHERE mesh_id = NEW.mesh_id)
  WHERE id = NEW.member_id;
END;

CREATE TRIGGER member_statement_followed AFTER UPDATE ON member_statement BEGIN
  UPDATE directory SET version = version + 1, token = lower(hex(randomblob(16))) WHERE mesh_id = NEW.mesh_id;
  UPDATE member SET changed_version = (SELECT version FROM directory WHERE mesh_id = NEW.mesh_id)
  WHERE id = NEW.member_id;
END;
