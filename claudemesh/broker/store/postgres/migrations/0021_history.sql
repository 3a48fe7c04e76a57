-- The history of a member: by destination, by sender and recipient of dms, and by the member that took a message.
CREATE INDEX message_history_destination
ON mesh.message_history (mesh_id, destination_kind, destination_ref, history_id) WHERE destination_kind <> 'queue';

CREATE INDEX message_history_sent
ON mesh.message_history (mesh_id, sender_member_id, destination_ref, history_id) WHERE destination_kind = 'dm';

-- The member that acknowledged a message of a queue.
ALTER TABLE mesh.message_history ADD COLUMN taken_by uuid;

CREATE INDEX message_history_taken
ON mesh.message_history (mesh_id, taken_by, destination_ref, history_id) WHERE taken_by IS NOT NULL;

CREATE FUNCTION mesh.note_taken() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  UPDATE mesh.message_history SET taken_by = OLD.recipient_member_id WHERE broker_message_id = OLD.broker_message_id;
  RETURN NULL;
END
$$;

CREATE TRIGGER queue_message_taken AFTER DELETE ON mesh.delivery_queue
FOR EACH ROW WHEN (OLD.queue IS NOT NULL AND OLD.recipient_member_id IS NOT NULL)
EXECUTE FUNCTION mesh.note_taken();

-- Periods of subscriptions: posts behind `after_history`, up to `until_history` when the subscription has ended.
-- Triggers write them, so that no statement forgets it. Subscriptions from before this schema begin here.
CREATE TABLE mesh.topic_period (
  mesh_id uuid NOT NULL,
  member_id uuid NOT NULL REFERENCES mesh.member (id) ON DELETE CASCADE,
  topic text COLLATE "C" NOT NULL,
  after_history bigint NOT NULL,
  until_history bigint,
  PRIMARY KEY (member_id, topic, after_history)
);

CREATE INDEX topic_period_ended ON mesh.topic_period (until_history) WHERE until_history IS NOT NULL;

CREATE FUNCTION mesh.last_history() RETURNS bigint LANGUAGE sql VOLATILE AS $$
  SELECT CASE WHEN s.is_called THEN s.last_value ELSE 0 END FROM mesh.message_history_history_id_seq AS s
$$;

INSERT INTO mesh.topic_period (mesh_id, member_id, topic, after_history)
SELECT s.mesh_id, s.member_id, s.topic, mesh.last_history()
FROM mesh.topic_subscription AS s JOIN mesh.topic AS t ON t.mesh_id = s.mesh_id AND t.name = s.topic
WHERE t.mode = 'topic';

CREATE FUNCTION mesh.begin_period() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO mesh.topic_period (mesh_id, member_id, topic, after_history)
  SELECT NEW.mesh_id, NEW.member_id, NEW.topic, mesh.last_history()
  FROM mesh.topic AS t WHERE t.mesh_id = NEW.mesh_id AND t.name = NEW.topic AND t.mode = 'topic'
  ON CONFLICT (member_id, topic, after_history) DO UPDATE SET until_history = NULL;
  RETURN NULL;
END
$$;

CREATE TRIGGER topic_period_begun AFTER INSERT ON mesh.topic_subscription
FOR EACH ROW EXECUTE FUNCTION mesh.begin_period();

CREATE FUNCTION mesh.end_period() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  UPDATE mesh.topic_period SET until_history = mesh.last_history()
  WHERE member_id = OLD.member_id AND topic = OLD.topic AND until_history IS NULL;
  DELETE FROM mesh.topic_period
  WHERE member_id = OLD.member_id AND topic = OLD.topic AND until_history <= after_history;
  RETURN NULL;
END
$$;

CREATE TRIGGER topic_period_ended AFTER DELETE ON mesh.topic_subscription
FOR EACH ROW EXECUTE FUNCTION mesh.end_period();

-- Messages below `before` were deleted, except those that a member is owed.
CREATE TABLE mesh.history_pruned (
  mesh_id uuid PRIMARY KEY REFERENCES mesh.mesh (id) ON DELETE CASCADE,
  before bigint NOT NULL
);

-- Ids of one source of a history (store/history.py), from its nearest end. A statement for each index and direction, so that each has a
-- plan of its own.
CREATE FUNCTION mesh.history_of(
  of_mesh uuid, family text, kind text, ref text, of_member uuid, low bigint, high bigint, forward boolean, most bigint
) RETURNS SETOF bigint LANGUAGE plpgsql STABLE AS $$
BEGIN
  IF family = 'to' AND forward THEN
    RETURN QUERY SELECT h.history_id FROM mesh.message_history AS h
      WHERE h.mesh_id = of_mesh AND h.destination_kind = kind AND h.destination_kind <> 'queue'
        AND h.destination_ref = ref AND h.history_id > low AND h.history_id < high
      ORDER BY h.history_id LIMIT most;
  ELSIF family = 'to' THEN
    RETURN QUERY SELECT h.history_id FROM mesh.message_history AS h
      WHERE h.mesh_id = of_mesh AND h.destination_kind = kind AND h.destination_kind <> 'queue'
        AND h.destination_ref = ref AND h.history_id > low AND h.history_id < high
      ORDER BY h.history_id DESC LIMIT most;
  ELSIF family = 'from' AND forward THEN
    RETURN QUERY SELECT h.history_id FROM mesh.message_history AS h
      WHERE h.mesh_id = of_mesh AND h.sender_member_id = of_member AND h.destination_kind = 'dm'
        AND h.destination_ref = ref AND h.history_id > low AND h.history_id < high
      ORDER BY h.history_id LIMIT most;
  ELSIF family = 'from' THEN
    RETURN QUERY SELECT h.history_id FROM mesh.message_history AS h
      WHERE h.mesh_id = of_mesh AND h.sender_member_id = of_member AND h.destination_kind = 'dm'
        AND h.destination_ref = ref AND h.history_id > low AND h.history_id < high
      ORDER BY h.history_id DESC LIMIT most;
  ELSIF forward THEN
    RETURN QUERY SELECT h.history_id FROM mesh.message_history AS h
      WHERE h.mesh_id = of_mesh AND h.taken_by = of_member AND h.destination_ref = ref
        AND h.history_id > low AND h.history_id < high
      ORDER BY h.history_id LIMIT most;
  ELSE
    RETURN QUERY SELECT h.history_id FROM mesh.message_history AS h
      WHERE h.mesh_id = of_mesh AND h.taken_by = of_member AND h.destination_ref = ref
        AND h.history_id > low AND h.history_id < high
      ORDER BY h.history_id DESC LIMIT most;
  END IF;
END
$$;
