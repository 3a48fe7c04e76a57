-- Epochs and wraps outlive their topic: posts that were accepted before its deletion are opened with them. A topic
-- that is made again under the name goes on counting, so that no number of an epoch has two keys.
ALTER TABLE mesh.topic_epoch DROP CONSTRAINT topic_epoch_mesh_id_topic_fkey;

ALTER TABLE mesh.topic_epoch ADD FOREIGN KEY (mesh_id) REFERENCES mesh.mesh (id) ON DELETE CASCADE;

CREATE INDEX topic_epoch_made ON mesh.topic_epoch (made_lived_ms);

CREATE FUNCTION mesh.go_on_counting() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  last integer := (SELECT max(e.key_epoch) FROM mesh.topic_epoch AS e
                   WHERE e.mesh_id = NEW.mesh_id AND e.topic = NEW.name);
BEGIN
  IF last IS NOT NULL THEN
    NEW.key_epoch := last;
    NEW.key_floor := last;
    NEW.rekey_wanted := true;
  END IF;
  RETURN NEW;
END
$$;

CREATE TRIGGER topic_made_again BEFORE INSERT ON mesh.topic
FOR EACH ROW EXECUTE FUNCTION mesh.go_on_counting();
