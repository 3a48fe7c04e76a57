-- The history of a member: by destination, by sender and recipient of dms, and by the member that took a message.
CREATE INDEX message_history_destination ON message_history (mesh_id, destination_kind, destination_ref, history_id)
  WHERE destination_kind <> 'queue';

CREATE INDEX message_history_sent ON message_history (mesh_id, sender_member_id, destination_ref, history_id)
  WHERE destination_kind = 'dm';

-- The member that acknowledged a message of a queue.
ALTER TABLE message_history ADD COLUMN taken_by TEXT;

CREATE INDEX message_history_taken ON message_history (mesh_id, taken_by, destination_ref, history_id)
  WHERE taken_by IS NOT NULL;

CREATE TRIGGER queue_message_taken AFTER DELETE ON delivery_queue
WHEN OLD.queue IS NOT NULL AND OLD.recipient_member_id <> '' BEGIN
  UPDATE message_history SET taken_by = OLD.recipient_member_id WHERE broker_message_id = OLD.broker_message_id;
END;

-- Periods of subscriptions: posts behind `after_history`, up to `until_history` when the subscription has ended.
-- Triggers write them, so that no statement forgets it. Subscriptions from before this schema begin here.
CREATE TABLE topic_period (
  mesh_id TEXT NOT NULL,
  member_id TEXT NOT NULL REFERENCES member (id) ON DELETE CASCADE,
  topic TEXT NOT NULL,
  after_history INTEGER NOT NULL,
  until_history INTEGER,
  PRIMARY KEY (member_id, topic, after_history)
) WITHOUT ROWID;

CREATE INDEX topic_period_ended ON topic_period (until_history) WHERE until_history IS NOT NULL;

INSERT INTO topic_period (mesh_id, member_id, topic, after_history)
SELECT s.mesh_id, s.member_id, s.topic,
       coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'message_history'), 0)
FROM topic_subscription AS s JOIN topic AS t ON t.mesh_id = s.mesh_id AND t.name = s.topic AND t.mode = 'topic';

CREATE TRIGGER topic_period_begun AFTER INSERT ON topic_subscription
WHEN (SELECT mode FROM topic WHERE mesh_id = NEW.mesh_id AND name = NEW.topic) = 'topic' BEGIN
  INSERT INTO topic_period (mesh_id, member_id, topic, after_history)
  VALUES (NEW.mesh_id, NEW.member_id, NEW.topic,
          coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'message_history'), 0))
  ON CONFLICT (member_id, topic, after_history) DO UPDATE SET until_history = NULL;
END;

CREATE TRIGGER topic_period_ended AFTER DELETE ON topic_subscription BEGIN
  UPDATE topic_period
  SET until_history = coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'message_history'), 0)
  WHERE member_id = OLD.member_id AND topic = OLD.topic AND until_history IS NULL;
  DELETE FROM topic_period
  WHERE member_id = OLD.member_id AND topic = OLD.topic AND until_history <= after_history;
END;

-- Messages below `before` were deleted, except those that a member is owed.
CREATE TABLE history_pruned (
  mesh_id TEXT PRIMARY KEY REFERENCES mesh (id) ON DELETE CASCADE,
  before INTEGER NOT NULL
) WITHOUT ROWID;
