-- The version of a mesh's member list. Each change of a member that others see makes a new one, in the same
-- transaction. The token tells it from a version of the same number in another copy of the database.
CREATE TABLE directory (
  mesh_id TEXT PRIMARY KEY REFERENCES mesh (id) ON DELETE CASCADE,
  version INTEGER NOT NULL,
  token TEXT NOT NULL
) WITHOUT ROWID;

-- Tokens of the newest 100,000 versions: a reader of an older one takes the whole list.
CREATE TABLE directory_token (
  mesh_id TEXT NOT NULL,
  version INTEGER NOT NULL,
  token TEXT NOT NULL,
  PRIMARY KEY (mesh_id, version)
) WITHOUT ROWID;

-- The version in which a member was changed last, and the one in which it joined.
ALTER TABLE member ADD COLUMN changed_version INTEGER NOT NULL DEFAULT 0;

ALTER TABLE member ADD COLUMN joined_version INTEGER NOT NULL DEFAULT 0;

UPDATE member SET changed_version = n.version, joined_version = n.version
FROM (SELECT id, row_number() OVER (PARTITION BY mesh_id ORDER BY created_at, id) AS version FROM member) AS n
WHERE n.id = member.id;

INSERT INTO directory (mesh_id, version, token)
SELECT mesh_id, count(*), lower(hex(randomblob(16))) FROM member GROUP BY mesh_id;

INSERT INTO directory_token (mesh_id, version, token) SELECT mesh_id, version, token FROM directory;

CREATE INDEX member_changed ON member (mesh_id, changed_version);

-- What a whole list is read from: those who have left cost it nothing.
CREATE INDEX member_listed ON member (mesh_id, changed_version) WHERE status <> 'left';

-- Owners and admins, who are asked about members that a restore has lost.
CREATE INDEX member_privileged ON member (role, mesh_id) WHERE role <> 'member';

CREATE TRIGGER directory_begun AFTER INSERT ON directory BEGIN
  INSERT INTO directory_token (mesh_id, version, token) VALUES (NEW.mesh_id, NEW.version, NEW.token);
END;

CREATE TRIGGER directory_advanced AFTER UPDATE OF version ON directory BEGIN
  INSERT INTO directory_token (mesh_id, version, token) VALUES (NEW.mesh_id, NEW.version, NEW.token);
  DELETE FROM directory_token WHERE mesh_id = NEW.mesh_id AND version <= NEW.version - 100000;
END;

CREATE TRIGGER member_joined AFTER INSERT ON member BEGIN
  INSERT INTO directory (mesh_id, version, token) VALUES (NEW.mesh_id, 1, lower(hex(randomblob(16))))
  ON CONFLICT (mesh_id) DO UPDATE SET version = version + 1, token = excluded.token;
  UPDATE member SET
    changed_version = (SELECT version FROM directory WHERE mesh_id = NEW.mesh_id),
    joined_version = (SELECT version FROM directory WHERE mesh_id = NEW.mesh_id)
  WHERE id = NEW.id;
END;

CREATE TRIGGER member_altered AFTER UPDATE OF name, role, status, ed25519_pubkey, x25519_pubkey,
  x25519_signature, key_id, summary, presence_status, visible ON member
WHEN (OLD.name, OLD.role, OLD.status, OLD.ed25519_pubkey, OLD.x25519_pubkey, OLD.x25519_signature, OLD.key_id,
      OLD.summary, OLD.presence_status, OLD.visible)
  IS NOT (NEW.name, NEW.role, NEW.status, NEW.ed25519_pubkey, NEW.x25519_pubkey, NEW.x25519_signature, NEW.key_id,
          NEW.summary, NEW.presence_status, NEW.visible)
BEGIN
  UPDATE directory SET version = version + 1, token = lower(hex(randomblob(16))) WHERE mesh_id = NEW.mesh_id;
  UPDATE member SET changed_version = (SELECT version FROM directory WHERE mesh_id = NEW.mesh_id)
  WHERE id = NEW.id;
END;

-- Earlier keys of a member are part of what others see of it.
CREATE TRIGGER member_key_altered AFTER UPDATE OF state ON member_key WHEN OLD.state IS NOT NEW.state BEGIN
  UPDATE directory SET version = version + 1, token = lower(hex(randomblob(16))) WHERE mesh_id = NEW.mesh_id;
  UPDATE member SET changed_version = (SELECT version FROM directory WHERE mesh_id = NEW.mesh_id)
  WHERE id = NEW.member_id;
END;
