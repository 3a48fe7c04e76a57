-- insert: a received message, once per sender and client_message_id.
INSERT INTO inbox (id, client_message_id, sender_member_id, broker_message_id, history_id, mesh, kind, topic,
                   sender_pubkey, sender_name, body, meta, priority, received_at, reply_to_id, lived_ms,
                   mentioned)
SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17
WHERE NOT EXISTS (SELECT 1 FROM inbox_seen WHERE sender_member_id = ?3 AND client_message_id = ?2)
ON CONFLICT (sender_member_id, client_message_id) DO NOTHING
RETURNING seq;

-- insert_sealed: the envelope of a body that cannot be opened yet.
INSERT INTO inbox_sealed (id, envelope) VALUES (?, ?);

-- sealed_senders: members whose messages are still sealed.
SELECT DISTINCT i.sender_member_id FROM inbox_sealed s JOIN inbox i ON i.id = s.id;

-- sealed_of: sealed messages of a member behind a seq, oldest first.
SELECT i.seq, i.id, s.envelope FROM inbox_sealed s JOIN inbox i ON i.id = s.id
WHERE i.sender_member_id = ?1 AND i.seq > ?2 ORDER BY i.seq LIMIT ?3;

-- unseal: the body of a sealed message, which takes the next seq and loses its marks.
UPDATE inbox SET seq = ?1, body = ?2, meta = ?3, shown_at = NULL, acked_at = NULL
WHERE id = ?4 AND body IS NULL RETURNING *;

-- note_seq: a seq that was given by hand is never given again.
UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = 'inbox';

-- remove_sealed: an envelope that is not needed any more.
DELETE FROM inbox_sealed WHERE id = ?;

-- get: a message by its seq or id.
SELECT * FROM inbox WHERE seq = ?1 OR id = ?2;

-- get_by_sender: the newest message that its sender, or the broker, calls so.
SELECT * FROM inbox WHERE broker_message_id = ?1 OR client_message_id = ?1 ORDER BY seq DESC LIMIT 1;

-- mark_shown: a reader says that it has shown this message.
UPDATE inbox SET shown_at = coalesce(shown_at, ?1) WHERE id = ?2;

-- mark_acked: a reader says that it is done with this message.
UPDATE inbox SET acked_at = coalesce(acked_at, ?1), shown_at = coalesce(shown_at, ?1) WHERE id = ?2;

-- newest_lived: the newest lived time of any row, NULL when there is none.
SELECT max(lived_ms) FROM (SELECT max(lived_ms) AS lived_ms FROM inbox UNION ALL SELECT max(lived_ms) FROM inbox_seen);

-- stamp_messages: messages of a schema without lived time are as old as the upgrade.
UPDATE inbox SET lived_ms = ? WHERE lived_ms IS NULL;

-- stamp_seen: the same for the ids of pruned messages.
UPDATE inbox_seen SET lived_ms = ? WHERE lived_ms IS NULL;

-- prune_remember: keep the ids of messages that are about to be pruned.
INSERT OR IGNORE INTO inbox_seen (sender_member_id, client_message_id, seen_at, lived_ms)
SELECT sender_member_id, client_message_id, received_at, ?2 FROM inbox WHERE lived_ms < ?1
ORDER BY lived_ms, seq LIMIT ?3;

-- prune: remove messages past their retention, in lived time.
DELETE FROM inbox WHERE seq IN (SELECT seq FROM inbox WHERE lived_ms < ?1 ORDER BY lived_ms, seq LIMIT ?2);

-- forget_seen: forget ids that the broker cannot deliver again.
DELETE FROM inbox_seen WHERE lived_ms < ?;

-- add_job: a hook that is to run.
INSERT INTO hook_jobs (hook, event_id, event) VALUES (?, ?, ?) ON CONFLICT DO NOTHING;

-- jobs_after: hooks that are to run, oldest first, with the message that each is about.
SELECT j.id AS job_id, j.hook, j.event_id, j.event, i.*
FROM hook_jobs j LEFT JOIN inbox i ON j.event IS NULL AND i.id = j.event_id
WHERE j.id > ?1 AND j.attempts <= ?2 ORDER BY j.id LIMIT ?3;

-- count_left: hooks that an earlier life may have begun were tried once more.
UPDATE hook_jobs SET attempts = attempts + 1 WHERE id IN (SELECT id FROM hook_jobs ORDER BY id LIMIT ?);

-- jobs_parked: hooks that were begun too often.
SELECT count(*) FROM hook_jobs WHERE attempts > ?;

-- remove_job: this hook has run.
DELETE FROM hook_jobs WHERE id = ?;

-- prune_jobs: jobs whose message is gone.
DELETE FROM hook_jobs AS j WHERE j.event IS NULL AND NOT EXISTS (SELECT 1 FROM inbox WHERE id = j.event_id);

-- positions_reserved: the number that is ahead of every seq given out.
SELECT coalesce((SELECT reserved FROM inbox_positions), 0);

-- positions_last: the greatest seq given so far, also when the message that had it is gone.
SELECT max(coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'inbox'), 0), coalesce((SELECT max(seq) FROM inbox), 0));

-- positions_clear: forget the last seq, so that another can be set.
DELETE FROM sqlite_sequence WHERE name = 'inbox';

-- positions_skip: let the next row follow this seq.
INSERT INTO sqlite_sequence (name, seq) VALUES ('inbox', ?);

-- positions_note: keep the number that is ahead of every seq given out.
INSERT INTO inbox_positions (only, reserved) VALUES (1, ?1) ON CONFLICT (only) DO UPDATE SET reserved = ?1;

-- acked_remember: keep the ids of acknowledged messages that are about to be removed for lack of room.
INSERT OR IGNORE INTO inbox_seen (sender_member_id, client_message_id, seen_at)
SELECT sender_member_id, client_message_id, ?1 FROM inbox AS i
WHERE acked_at IS NOT NULL AND NOT EXISTS (SELECT 1 FROM hook_jobs WHERE event_id = i.id) ORDER BY seq LIMIT ?2;

-- acked_remove: remove the oldest acknowledged messages that no hook waits for.
DELETE FROM inbox WHERE seq IN (
  SELECT seq FROM inbox AS i
  WHERE acked_at IS NOT NULL AND NOT EXISTS (SELECT 1 FROM hook_jobs WHERE event_id = i.id) ORDER BY seq LIMIT ?);
