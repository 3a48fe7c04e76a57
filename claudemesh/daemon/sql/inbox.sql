-- insert: insert a received message, once for each sender and client_message_id. A seq of NULL is the next one.
INSERT INTO inbox (seq, id, client_message_id, sender_member_id, broker_message_id, history_id, mesh, kind, topic,
                   sender_pubkey, sender_name, body, meta, priority, received_at, reply_to_id, lived_ms,
                   mentioned, attachments, from_session, to_session, for_session, unreadable, receipt, receipt_due,
                   recovered, shown_at, acked_at, hops, in_loop, request_fingerprint)
VALUES (?27, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?20, ?21, ?22,
        ?22 IS NOT NULL, ?23, iif(?23, ?14, NULL), iif(?23, ?14, NULL), ?24, ?25, ?26)
ON CONFLICT (sender_member_id, client_message_id) DO NOTHING;

-- seen: those of these pairs of sender and client_message_id whose message was pruned. `insert` does not look for them,
-- because a statement that selects its row keeps a copy of each page that it changes, for its own rollback.
SELECT s.sender_member_id, s.client_message_id FROM json_each(?) AS w CROSS JOIN inbox_seen AS s
WHERE s.sender_member_id = json_extract(w.value, '$[0]') AND s.client_message_id = json_extract(w.value, '$[1]');

-- local_of: the id and the fingerprint of a message that this host has sent to itself.
SELECT broker_message_id, request_fingerprint FROM inbox WHERE sender_member_id = ? AND client_message_id = ?;

-- has_recovered: whether messages were read back from the history.
SELECT EXISTS (SELECT 1 FROM inbox INDEXED BY inbox_recovered WHERE recovered);

-- replace_recovered: delete a message that was read back from the history and is delivered after all.
DELETE FROM inbox WHERE sender_member_id = ? AND client_message_id = ? AND recovered;

-- insert_sealed: insert the envelope of a body that cannot be opened yet.
INSERT INTO inbox_sealed (id, envelope) VALUES (?, ?);

-- sealed_senders: members whose messages wait for a key.
SELECT DISTINCT i.sender_member_id FROM inbox_sealed AS s CROSS JOIN inbox AS i ON i.id = s.id WHERE i.unreadable IS NULL;

-- sealed_ids: messages of some members that wait for a key, in the order in which the broker accepted them.
SELECT i.id FROM inbox_sealed AS s CROSS JOIN inbox AS i ON i.id = s.id
WHERE i.unreadable IS NULL AND i.sender_member_id IN (SELECT value FROM json_each(?))
ORDER BY i.history_id, i.seq;

-- sealed_of: these messages, as far as they still wait.
SELECT i.id, i.sender_member_id, s.envelope FROM json_each(?) w JOIN inbox_sealed s ON s.id = w.value
JOIN inbox i ON i.id = s.id WHERE i.unreadable IS NULL ORDER BY w.key;

-- set_aside: write why the body of a message does not open.
UPDATE inbox SET unreadable = ? WHERE id = ? AND body IS NULL;

-- without_text: how many messages wait for a key, since when, and how many were set aside.
SELECT count(*) FILTER (WHERE unreadable IS NULL), min(received_at) FILTER (WHERE unreadable IS NULL),
       count(*) FILTER (WHERE unreadable IS NOT NULL)
FROM inbox INDEXED BY inbox_without_text WHERE body IS NULL;

-- unseal: write the body of a sealed message, which takes the next seq and becomes unread.
UPDATE inbox SET seq = ?1, body = ?2, meta = ?3, attachments = ?5, from_session = ?6,
  to_session = ?7, for_session = ?7, receipt = ?8, receipt_due = ?8 IS NOT NULL, hops = ?9, in_loop = ?10,
  shown_at = NULL, acked_at = NULL, notified_at = NULL, seen_by = NULL,
  notified_by = NULL, shown_by = NULL, acked_by = NULL, recovered = 0, told = 0
WHERE id = ?4 AND body IS NULL RETURNING *;

-- untell_besides: note that no session was told of a message.
DELETE FROM inbox_told WHERE inbox_id = ?;

-- add_file: insert a file that a message announces.
INSERT INTO inbox_file (file_id, inbox_id, is_text) VALUES (?, ?, ?) ON CONFLICT DO NOTHING;

-- file_of_text: the file that holds the whole text of a message.
SELECT f.number, f.file_id, f.inbox_id, f.fetched_at, f.error, i.attachments, i.sender_name, i.sender_pubkey, i.kind, i.topic,
       i.received_at
FROM inbox_file AS f JOIN inbox AS i ON i.id = f.inbox_id WHERE f.inbox_id = ? AND f.is_text LIMIT 1;

-- texts_known: the messages whose whole text is a file.
SELECT inbox_id FROM inbox_file WHERE is_text;

-- files_by_id: the files that were announced under this id, the first one of each sender.
SELECT min(f.number), f.file_id, f.inbox_id, f.fetched_at, f.error, i.attachments, i.sender_name, i.sender_pubkey, i.kind,
       i.topic, i.received_at
FROM inbox_file AS f JOIN inbox AS i ON i.id = f.inbox_id WHERE f.file_id = ?1 AND (?2 IS NULL OR f.inbox_id = ?2)
GROUP BY i.sender_member_id ORDER BY min(f.number) LIMIT 8;

-- files_before: files that were announced before one of them, newest first.
SELECT f.number, f.file_id, f.inbox_id, f.fetched_at, f.error, i.attachments, i.sender_name, i.sender_pubkey, i.kind, i.topic,
       i.received_at
FROM inbox_file AS f JOIN inbox AS i ON i.id = f.inbox_id WHERE f.number < ? AND NOT f.is_text ORDER BY f.number DESC LIMIT ?;

-- file_fetched: set the time of the first download of a file.
UPDATE inbox_file SET fetched_at = coalesce(fetched_at, ?), error = NULL WHERE number = ?;

-- file_failed: set the code of a failed download.
UPDATE inbox_file SET error = ? WHERE number = ? AND fetched_at IS NULL;

-- files_untold: fetched files that the broker may not know as fetched, oldest first.
SELECT f.number, f.file_id, f.inbox_id, f.fetched_at, f.error, i.attachments, i.sender_name, i.sender_pubkey, i.kind,
       i.topic, i.received_at
FROM inbox_file AS f JOIN inbox AS i ON i.id = f.inbox_id
WHERE f.fetched_at IS NOT NULL AND NOT f.is_told AND f.number > ? ORDER BY f.number LIMIT ?;

-- file_told: note that the broker knows a file as fetched.
UPDATE inbox_file SET is_told = 1 WHERE number = ?;

-- note_seq: note a seq that was not given out by SQLite, so that it is never given again.
UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = 'inbox';

-- remove_sealed: delete the envelope of an opened message.
DELETE FROM inbox_sealed WHERE id = ?;

-- get: a message by its seq or id.
SELECT * FROM inbox WHERE seq = ?1 OR id = ?2;

-- get_by_sender: the newest message with this client_message_id or broker_message_id. The unique key of a message begins
-- with its sender, so each sender is looked up once.
WITH RECURSIVE sender (member) AS (
  SELECT min(sender_member_id) FROM inbox
  UNION ALL SELECT (SELECT min(i.sender_member_id) FROM inbox AS i WHERE i.sender_member_id > s.member)
  FROM sender AS s WHERE s.member IS NOT NULL)
SELECT * FROM inbox WHERE seq IN (
  SELECT seq FROM inbox WHERE broker_message_id = ?1
  UNION ALL SELECT i.seq FROM sender AS s CROSS JOIN inbox AS i
  ON i.sender_member_id = s.member AND i.client_message_id = ?1)
ORDER BY seq DESC LIMIT 1;

-- unread_count: the number of messages that are not acknowledged, counted up to a limit.
SELECT count(*) FROM (SELECT 1 FROM inbox WHERE acked_at IS NULL LIMIT ?1);

-- activity: how many messages arrived in each of these spans of time, each counted up to a limit.
SELECT (SELECT count(*) FROM (SELECT 1 FROM inbox INDEXED BY inbox_received
                              WHERE received_at >= json_extract(w.value, '$[0]')
                              AND received_at < json_extract(w.value, '$[1]') LIMIT ?2))
FROM json_each(?1) AS w ORDER BY w.key;

-- mark_notified: set the time at which a session was told that a message waits.
UPDATE inbox SET notified_at = coalesce(notified_at, ?1), notified_by = iif(notified_at IS NULL, ?3, notified_by),
  seen_by = iif(shown_at IS NULL AND notified_at IS NULL, coalesce(?3, seen_by), seen_by),
  receipt_due = iif(receipt > 2 AND shown_at IS NULL AND notified_at IS NULL, max(receipt_due, 2), receipt_due),
  told = iif(?3 IS NULL OR for_session IS ?3, 1, told)
WHERE id = ?2;

-- told_besides: note that a session was told of messages that it does not have.
INSERT INTO inbox_told (session, inbox_id)
SELECT :session, id FROM inbox
WHERE id IN (SELECT value FROM json_each(:ids)) AND for_session IS NOT :session ON CONFLICT DO NOTHING;

-- mark_told: the same as mark_notified for many messages. Those without a session are its own then, if it `gives` them.
UPDATE inbox SET notified_at = coalesce(notified_at, :now),
  notified_by = iif(notified_at IS NULL, :session, notified_by),
  seen_by = iif(notified_at IS NULL, :session, seen_by),
  receipt_due = iif(receipt > 2 AND notified_at IS NULL, max(receipt_due, 2), receipt_due),
  told = iif(iif(:gives, coalesce(for_session, :session), for_session) IS :session, 1, told),
  for_session = iif(:gives, coalesce(for_session, :session), for_session)
WHERE id IN (SELECT value FROM json_each(:ids));

-- give_oldest: give a session the oldest messages for the host that no session has, as far as a seq.
UPDATE inbox SET for_session = :session WHERE seq IN (
  SELECT seq FROM inbox INDEXED BY inbox_for_host
  WHERE for_session IS NULL AND shown_at IS NULL AND acked_at IS NULL AND body IS NOT NULL AND seq <= :through
    AND sender_member_id NOT IN (SELECT value FROM json_each(:without))
  ORDER BY seq LIMIT :limit);

-- newest_seq: the newest message.
SELECT max(seq) FROM inbox;

-- mark_shown: set the time at which a reader has shown a message. A message for the host is the reader's then.
UPDATE inbox SET shown_at = coalesce(shown_at, ?1), shown_by = iif(shown_at IS NULL, ?3, shown_by),
  seen_by = iif(shown_at IS NULL, coalesce(?3, seen_by), seen_by),
  for_session = coalesce(for_session, ?3),
  receipt_due = iif(receipt > 2 AND shown_at IS NULL, max(receipt_due, 3), receipt_due)
WHERE id = ?2;

-- mark_acked: set the time at which a reader has acknowledged a message. It is shown then.
UPDATE inbox SET acked_at = coalesce(acked_at, ?1), shown_at = coalesce(shown_at, ?1),
  acked_by = iif(acked_at IS NULL, ?3, acked_by), shown_by = iif(shown_at IS NULL, ?3, shown_by),
  seen_by = iif(acked_at IS NULL, coalesce(?3, seen_by), seen_by),
  for_session = coalesce(for_session, ?3),
  receipt_due = CASE WHEN receipt = 4 AND acked_at IS NULL THEN 4
                     WHEN receipt > 2 AND shown_at IS NULL THEN max(receipt_due, 3)
                     ELSE receipt_due END
WHERE id = ?2;

-- answered: ids of the messages that a reply answers and that are not acknowledged.
SELECT id FROM inbox INDEXED BY inbox_broker_message WHERE broker_message_id = ? AND acked_at IS NULL;

-- receipt_senders: members that are yet to be told a state of their messages.
SELECT DISTINCT sender_member_id FROM inbox INDEXED BY inbox_receipt_due WHERE receipt_due > 0 LIMIT ?;

-- receipts_due: messages of a member whose state it is yet to be told, oldest first.
SELECT id, receipt_due, receipt, client_message_id, received_at, notified_at, shown_at, acked_at, notified_by, shown_by,
       acked_by
FROM inbox INDEXED BY inbox_receipt_due WHERE sender_member_id = ? AND receipt_due > 0 ORDER BY seq LIMIT ?;

-- receipt_told: note that a state was told, unless a further one has followed.
UPDATE inbox SET receipt_due = 0 WHERE id = ? AND receipt_due = ?;

-- drop: delete a message that turns out to consist of receipts.
DELETE FROM inbox WHERE id = ?;

-- newest_lived: the newest lived time of any row, NULL when there is none.
SELECT max(lived_ms) FROM (SELECT max(lived_ms) AS lived_ms FROM inbox UNION ALL SELECT max(lived_ms) FROM inbox_seen);

-- stamp_messages: stamp messages of a schema without lived time with the time of the upgrade.
UPDATE inbox SET lived_ms = ? WHERE lived_ms IS NULL;

-- stamp_seen: the same for the ids of pruned messages.
UPDATE inbox_seen SET lived_ms = ? WHERE lived_ms IS NULL;

-- prune_remember: keep the ids of messages that are about to be pruned.
INSERT OR IGNORE INTO inbox_seen (sender_member_id, client_message_id, seen_at, lived_ms)
SELECT sender_member_id, client_message_id, received_at, ?2 FROM inbox WHERE lived_ms < ?1
ORDER BY lived_ms, seq LIMIT ?3;

-- prune: remove messages past their retention, in lived time.
DELETE FROM inbox WHERE seq IN (SELECT seq FROM inbox WHERE lived_ms < ?1 ORDER BY lived_ms, seq LIMIT ?2);

-- forget_seen: delete ids that the broker cannot deliver again.
DELETE FROM inbox_seen WHERE lived_ms < ?;

-- add_job: insert a job of a hook.
INSERT INTO hook_jobs (hook, event_id, event) VALUES (?, ?, ?) ON CONFLICT DO NOTHING;

-- jobs_after: jobs of hooks, oldest first, each with its message.
SELECT j.id AS job_id, j.hook, j.event_id, j.event, i.*
FROM hook_jobs j LEFT JOIN inbox i ON j.event IS NULL AND i.id = j.event_id
WHERE j.id > ?1 AND j.attempts <= ?2 ORDER BY j.id LIMIT ?3;

-- count_left: count a run for the jobs that an earlier run of the daemon may have begun.
UPDATE hook_jobs SET attempts = attempts + 1 WHERE id IN (SELECT id FROM hook_jobs ORDER BY id LIMIT ?);

-- jobs_parked: the number of jobs that were begun too often.
SELECT count(*) FROM hook_jobs WHERE attempts > ?;

-- remove_job: delete the job of a hook that has run.
DELETE FROM hook_jobs WHERE id = ?;

-- prune_jobs: delete jobs whose message is deleted.
DELETE FROM hook_jobs AS j WHERE j.event IS NULL AND NOT EXISTS (SELECT 1 FROM inbox WHERE id = j.event_id);

-- positions_reserved: the reserved number, which is ahead of every seq given out.
SELECT coalesce((SELECT reserved FROM inbox_positions), 0);

-- positions_last: the greatest seq given out, also when its message is deleted.
SELECT max(coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'inbox'), 0), coalesce((SELECT max(seq) FROM inbox), 0));

-- positions_first: the least seq of a message that was not read back from the history.
SELECT seq FROM inbox WHERE NOT recovered ORDER BY seq LIMIT 1;

-- positions_below: the greatest seq below this one, 0 if there is none.
SELECT coalesce(max(seq), 0) FROM inbox WHERE seq < ?;

-- positions_clear: clear the last seq, so that another can be set.
DELETE FROM sqlite_sequence WHERE name = 'inbox';

-- positions_skip: set the last seq, which the next row follows.
INSERT INTO sqlite_sequence (name, seq) VALUES ('inbox', ?);

-- positions_note: write the reserved number.
INSERT INTO inbox_positions (only, reserved) VALUES (1, ?1) ON CONFLICT (only) DO UPDATE SET reserved = ?1;

-- acked_remember: keep the ids of acknowledged messages that acked_remove deletes.
INSERT OR IGNORE INTO inbox_seen (sender_member_id, client_message_id, seen_at)
SELECT sender_member_id, client_message_id, ?1 FROM inbox AS i
WHERE acked_at IS NOT NULL AND receipt_due = 0 AND NOT EXISTS (SELECT 1 FROM hook_jobs WHERE event_id = i.id)
ORDER BY seq LIMIT ?2;

-- acked_remove: delete the oldest acknowledged messages without a job of a hook.
DELETE FROM inbox WHERE seq IN (
  SELECT seq FROM inbox AS i
  WHERE acked_at IS NOT NULL AND receipt_due = 0 AND NOT EXISTS (SELECT 1 FROM hook_jobs WHERE event_id = i.id)
  ORDER BY seq LIMIT ?);
