-- The epochs of a topic up to `key_floor` are not accepted any more: a member that may hold their keys was revoked.
ALTER TABLE mesh.topic ADD COLUMN key_floor integer NOT NULL DEFAULT 0;

CREATE FUNCTION mesh.end_topic_keys(of_mesh uuid, of_member uuid) RETURNS void LANGUAGE sql AS $$
  UPDATE mesh.topic SET rekey_wanted = true, key_floor = key_epoch
  WHERE mesh_id = of_mesh AND name IN (
    SELECT s.topic FROM mesh.topic_subscription AS s WHERE s.member_id = of_member
    UNION SELECT w.topic FROM mesh.topic_wrap AS w WHERE w.recipient_member_id = of_member)
$$;

CREATE OR REPLACE FUNCTION mesh.want_topic_keys_of_member() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.status = 'revoked' THEN
    PERFORM mesh.end_topic_keys(NEW.mesh_id, NEW.id);
  ELSE
    PERFORM mesh.want_topic_keys(NEW.mesh_id, NEW.id);
  END IF;
  RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION mesh.want_topic_keys_of_key() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM mesh.end_topic_keys(NEW.mesh_id, NEW.member_id);
  RETURN NULL;
END
$$;

-- Mentions stand in the signed envelope, and nothing selects messages by them. Brokers of the release before still
-- insert and delete here; the table stays for them, empty, and is dropped by a later release.
TRUNCATE mesh.mention_index;

CREATE FUNCTION mesh.no_mention() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RETURN NULL;
END
$$;

CREATE TRIGGER mention_not_kept BEFORE INSERT ON mesh.mention_index
FOR EACH ROW EXECUTE FUNCTION mesh.no_mention();

-- `mesh.accept_v3` stays for brokers of the release before.
-- include: functions/accept_v4.sql
