-- The version of a mesh's member list. Each change of a member that others see makes a new one, in the same
-- transaction. The row is locked until its end, so that versions become visible in their order. The token tells
-- a version from one of the same number in another copy of the database.
CREATE TABLE mesh.directory (
  mesh_id uuid PRIMARY KEY REFERENCES mesh.mesh (id) ON DELETE CASCADE,
  version bigint NOT NULL,
  token uuid NOT NULL
);

-- Tokens of the newest 100,000 versions: a reader of an older one takes the whole list.
CREATE TABLE mesh.directory_token (
  mesh_id uuid NOT NULL,
  version bigint NOT NULL,
  token uuid NOT NULL,
  PRIMARY KEY (mesh_id, version)
);

-- The version in which a member was changed last, and the one in which it joined.
ALTER TABLE mesh.member
  ADD COLUMN changed_version bigint NOT NULL DEFAULT 0,
  ADD COLUMN joined_version bigint NOT NULL DEFAULT 0;

UPDATE mesh.member AS m SET changed_version = n.version, joined_version = n.version
FROM (SELECT id, row_number() OVER (PARTITION BY mesh_id ORDER BY created_at, id) AS version
      FROM mesh.member) AS n
WHERE n.id = m.id;

INSERT INTO mesh.directory (mesh_id, version, token)
SELECT mesh_id, count(*), gen_random_uuid() FROM mesh.member GROUP BY mesh_id;

INSERT INTO mesh.directory_token (mesh_id, version, token) SELECT mesh_id, version, token FROM mesh.directory;

CREATE INDEX member_changed ON mesh.member (mesh_id, changed_version);

-- What a whole list is read from: those who have left cost it nothing.
CREATE INDEX member_listed ON mesh.member (mesh_id, changed_version) WHERE status <> 'left';

-- Owners and admins, who are asked about members that a restore has lost.
CREATE INDEX member_privileged ON mesh.member (role, mesh_id) WHERE role <> 'member';

CREATE FUNCTION mesh.advance_directory(of_mesh uuid) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
  made bigint;
BEGIN
  INSERT INTO mesh.directory AS d (mesh_id, version, token) VALUES (of_mesh, 1, gen_random_uuid())
  ON CONFLICT (mesh_id) DO UPDATE SET version = d.version + 1, token = excluded.token
  RETURNING d.version INTO made;
  INSERT INTO mesh.directory_token (mesh_id, version, token)
  SELECT d.mesh_id, d.version, d.token FROM mesh.directory AS d WHERE d.mesh_id = of_mesh;
  DELETE FROM mesh.directory_token AS t WHERE t.mesh_id = of_mesh AND t.version <= made - 100000;
  RETURN made;
END
$$;

CREATE FUNCTION mesh.version_member() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.changed_version := mesh.advance_directory(NEW.mesh_id);
  IF TG_OP = 'INSERT' THEN
    NEW.joined_version := NEW.changed_version;
  END IF;
  RETURN NEW;
END
$$;

CREATE TRIGGER member_joined BEFORE INSERT ON mesh.member
FOR EACH ROW EXECUTE FUNCTION mesh.version_member();

CREATE TRIGGER member_altered BEFORE UPDATE ON mesh.member
FOR EACH ROW WHEN (
  (OLD.name, OLD.role, OLD.status, OLD.ed25519_pubkey, OLD.x25519_pubkey, OLD.x25519_signature, OLD.key_id,
   OLD.summary, OLD.presence_status, OLD.visible)
  IS DISTINCT FROM
  (NEW.name, NEW.role, NEW.status, NEW.ed25519_pubkey, NEW.x25519_pubkey, NEW.x25519_signature, NEW.key_id,
   NEW.summary, NEW.presence_status, NEW.visible))
EXECUTE FUNCTION mesh.version_member();

-- Earlier keys of a member are part of what others see of it.
CREATE FUNCTION mesh.version_member_of_key() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  UPDATE mesh.member SET changed_version = mesh.advance_directory(NEW.mesh_id) WHERE id = NEW.member_id;
  RETURN NEW;
END
$$;

CREATE TRIGGER member_key_altered AFTER UPDATE ON mesh.member_key
FOR EACH ROW WHEN (OLD.state IS DISTINCT FROM NEW.state) EXECUTE FUNCTION mesh.version_member_of_key();
