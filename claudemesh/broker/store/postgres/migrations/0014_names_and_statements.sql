-- A name belongs to an active member: leaving and being revoked release it.
DROP INDEX mesh.member_name;

-- Members that are not active have NULL in the last column, and so no place in the index is taken. A partial
-- index would be read for every question about active members.
CREATE UNIQUE INDEX member_name_active ON mesh.member (lower(name), mesh_id, (CASE WHEN status = 'active' THEN 0 END));

-- Pages of all members by name; a name may have had several.
CREATE INDEX member_name_order ON mesh.member (lower(name), id, mesh_id);

-- The latest statement of each kind that an entry of the member list carries, as its signer gave it.
CREATE TABLE mesh.member_statement (
  mesh_id uuid NOT NULL,
  member_id uuid NOT NULL REFERENCES mesh.member (id) ON DELETE CASCADE,
  kind text NOT NULL,
  subject text NOT NULL,
  at_ms bigint NOT NULL,
  body text NOT NULL,
  PRIMARY KEY (member_id, kind, subject)
);

-- Statements are part of what others see of a member.
CREATE FUNCTION mesh.version_member_of_statement() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  UPDATE mesh.member SET changed_version = mesh.advance_directory(NEW.mesh_id) WHERE id = NEW.member_id;
  RETURN NEW;
END
$$;

CREATE TRIGGER member_statement_made AFTER INSERT OR UPDATE ON mesh.member_statement
FOR EACH ROW EXECUTE FUNCTION mesh.version_member_of_statement();
