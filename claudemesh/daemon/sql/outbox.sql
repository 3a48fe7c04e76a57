-- Statements that move a row take the status after it first and the status before it last, both from the table of
-- states (outbox/states.py). Literals stand where an index needs them.

-- find_many: rows for a set of client_message_ids, given as a JSON array.
SELECT o.id, o.client_message_id, o.status, o.request_fingerprint, o.last_error, o.broker_message_id,
       o.history_id, o.payload
FROM json_each(?) AS wanted JOIN outbox AS o ON o.client_message_id = wanted.value;

-- insert: a new send, pending, or in flight with the broker's time at the first send.
INSERT INTO outbox (id, client_message_id, request_fingerprint, payload, enqueued_at, lived_ms, priority,
                    waiting_topic, due_lived_ms, receipt, recipient, status, first_sent_broker_ms)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, iif(?8 IS NULL, 0, 4611686018427387904), ?9, ?10, ?11, ?12);

-- insert_local: a send that is in the inbox of this host already, done.
INSERT INTO outbox (id, client_message_id, request_fingerprint, payload, enqueued_at, lived_ms, status, priority,
                    due_lived_ms, receipt, recipient, broker_message_id, delivered_at, done_lived_ms, local)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, 'done', ?7, 0, ?8, ?9, ?10, ?5, ?6, 1);

-- known_sends: those of some client_message_ids, given as a JSON array, that have a row.
SELECT o.client_message_id FROM json_each(?) AS wanted JOIN outbox AS o ON o.client_message_id = wanted.value;

-- promote: make rows ready whose wait is over.
UPDATE outbox SET due_lived_ms = 0 WHERE rowid IN (
  SELECT rowid FROM outbox INDEXED BY outbox_waiting
  WHERE status = 'pending' AND due_lived_ms > 0 AND due_lived_ms <= ? ORDER BY due_lived_ms LIMIT ?);

-- ready: ready pending rows, most urgent first, then oldest.
SELECT id, client_message_id, payload, attempts FROM outbox INDEXED BY outbox_ready
WHERE status = 'pending' AND due_lived_ms = 0
ORDER BY priority, rowid LIMIT ?;

-- take_due: pending to inflight, with the broker's time at the first send.
UPDATE outbox SET status = ?, first_sent_broker_ms = coalesce(first_sent_broker_ms, ?) WHERE id = ? AND status = ?;

-- refuse: pending to dead, never sent as it is.
UPDATE outbox SET status = ?, last_error = ?, waiting_topic = NULL WHERE id = ? AND status = ?;

-- settle_done: inflight or dead to done, with the broker's ids.
UPDATE outbox SET status = ?, broker_message_id = ?, history_id = ?, delivered_at = ?, done_lived_ms = ?,
  last_error = NULL, waiting_topic = NULL
WHERE id = ? AND status = ?;

-- settle_dead: inflight to dead, with the reason.
UPDATE outbox SET status = ?, last_error = ?, attempts = attempts + 1 WHERE id = ? AND status = ?;

-- settle_retry: inflight back to pending, to be tried again later.
UPDATE outbox SET status = ?, last_error = ?, due_lived_ms = ?, attempts = attempts + 1
WHERE id = ? AND status = ?;

-- settle_unsealed: inflight back to pending, until it is sealed with the key of its topic.
UPDATE outbox SET status = ?, last_error = ?, waiting_topic = ?, attempts = attempts + 1, due_lived_ms = 4611686018427387904
WHERE id = ? AND status = ?;

-- topics_waited_for: the topics and queues whose key a row waits for.
SELECT DISTINCT waiting_topic FROM outbox WHERE waiting_topic IS NOT NULL AND status = 'pending';

-- waiting_of: rows that wait for the key of a topic, in the order in which they leave.
SELECT rowid, id, client_message_id, payload, attempts FROM outbox INDEXED BY outbox_waiting_topic
WHERE waiting_topic = ? AND status = 'pending' ORDER BY priority, rowid LIMIT ?;

-- waiting_rows_of: the same rows, all of them, as they would be taken.
SELECT id, client_message_id, payload, attempts FROM outbox INDEXED BY outbox_waiting_topic
WHERE waiting_topic = ? AND status = 'pending' ORDER BY priority, rowid;

-- sealed: give a row its sealed envelope; it is ready.
UPDATE outbox SET payload = ?, waiting_topic = NULL, due_lived_ms = 0, last_error = NULL WHERE rowid = ?;

-- next_due: the lived time at which the next waiting row is ready. A row that waits for a key has none.
SELECT due_lived_ms FROM outbox INDEXED BY outbox_waiting
WHERE status = 'pending' AND due_lived_ms > 0 AND due_lived_ms < 4611686018427387904 ORDER BY due_lived_ms LIMIT 1;

-- newest_stamp: the newest lived time in the file. The stamps of acceptance never decrease from row to row.
SELECT max(stamp) FROM (
  SELECT * FROM (SELECT lived_ms AS stamp FROM outbox ORDER BY rowid DESC LIMIT 1)
  UNION ALL
  SELECT max(done_lived_ms) FROM outbox WHERE status = 'done' AND payload <> x'');

-- stamp_unstamped: stamp rows of a schema without lived time with the time of the upgrade.
UPDATE outbox SET lived_ms = ? WHERE status IN ('pending', 'inflight') AND lived_ms IS NULL;

-- stamp_undated: the same for done rows and the time at which they were done.
UPDATE outbox SET done_lived_ms = ? WHERE status = 'done' AND payload <> x'' AND done_lived_ms IS NULL;

-- recover_inflight: inflight to pending after a stop of the process: the outcome is unknown.
UPDATE outbox SET status = ?, attempts = attempts + 1, due_lived_ms = 0, last_error = 'interrupted'
WHERE status = 'inflight';

-- clamp_waits: shorten waits to the longest backoff.
UPDATE outbox SET due_lived_ms = ?1 WHERE status = 'pending' AND due_lived_ms > ?1 AND waiting_topic IS NULL;

-- too_old: pending rows accepted before a lived time. They are the oldest rows, so no other row is read.
SELECT id, client_message_id, length(payload), attempts, first_sent_broker_ms FROM (
  SELECT id, client_message_id, payload, attempts, lived_ms, first_sent_broker_ms
  FROM outbox INDEXED BY outbox_pending WHERE status = 'pending' ORDER BY rowid LIMIT ?2)
WHERE lived_ms < ?1;

-- sent_too_long_ago: pending rows first sent before a moment of the broker's time.
SELECT id, client_message_id, length(payload), attempts, first_sent_broker_ms FROM outbox INDEXED BY outbox_sent
WHERE status = 'pending' AND first_sent_broker_ms IS NOT NULL AND first_sent_broker_ms < ?1
ORDER BY first_sent_broker_ms LIMIT ?2;

-- get: one row by its id or its client_message_id.
SELECT * FROM outbox WHERE id = ?1 OR client_message_id = ?1 LIMIT 1;

-- receipt_row: the send that a receipt is about, and the receipt that its recipient has told before.
SELECT o.id, o.receipt, o.recipient, r.delivered_at, r.notified_at, r.shown_at, r.acked_at, r.notified_by, r.shown_by,
       r.acked_by
FROM outbox AS o LEFT JOIN receipt AS r ON r.row_id = o.id AND r.member_id = ?2 WHERE o.client_message_id = ?1;

-- receipt_write: write what a recipient has told of a send.
INSERT INTO receipt (row_id, member_id, name, state, delivered_at, notified_at, shown_at, acked_at, notified_by, shown_by,
                     acked_by)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
ON CONFLICT (row_id, member_id) DO UPDATE SET name = ?3, state = ?4, delivered_at = ?5, notified_at = ?6,
  shown_at = ?7, acked_at = ?8, notified_by = ?9, shown_by = ?10, acked_by = ?11;

-- receipts_of: what the recipients have told of a send, by name.
SELECT member_id, name, state, delivered_at, notified_at, shown_at, acked_at, notified_by, shown_by, acked_by
FROM receipt WHERE row_id = ? ORDER BY name, member_id LIMIT ?;

-- receipt_counts: the number of recipients by their furthest state.
SELECT state, count(*) FROM receipt WHERE row_id = ? GROUP BY state;

-- totals: the number of rows by status, and the payload bytes of pending and inflight rows. Read at the start.
SELECT (SELECT count(*) FROM outbox WHERE status = 'pending'),
       (SELECT count(*) FROM outbox WHERE status = 'inflight'),
       (SELECT count(*) FROM outbox WHERE status = 'dead'),
       (SELECT coalesce(sum(length(payload)), 0) FROM outbox WHERE status IN ('pending', 'inflight'));

-- abort: dead or pending to aborted, perhaps with a successor.
UPDATE outbox SET status = ?, aborted_at = ?, aborted_by = ?, superseded_by = ?, waiting_topic = NULL
WHERE id = ? AND status = ?;

-- drop_payloads: drop the payloads of rows done before a lived time, except of those that wait to be offered again.
UPDATE outbox SET payload = x'' WHERE rowid IN (
  SELECT rowid FROM outbox WHERE status = 'done' AND payload <> x'' AND done_lived_ms < ?
  AND id NOT IN (SELECT row_id FROM reoffer) ORDER BY done_lived_ms LIMIT ?);

-- done_at: the done send at a distance behind the newest one, in the broker's order. A local send has no place in it.
SELECT rowid, history_id, id, client_message_id, broker_message_id, payload <> x'' FROM outbox
WHERE status = 'done' AND last_error IS NULL AND history_id IS NOT NULL
ORDER BY history_id DESC, rowid DESC LIMIT 1 OFFSET ?;

-- done_before: done sends before a place in the broker's order, newest first.
SELECT rowid, history_id, id, client_message_id, broker_message_id, payload <> x'' FROM outbox
WHERE status = 'done' AND last_error IS NULL AND (history_id, rowid) < (?, ?)
ORDER BY history_id DESC, rowid DESC LIMIT ?;

-- restore_get: the last restore that was noticed.
SELECT noticed_ms, scanned, forgotten, lost FROM broker_restore;

-- restore_noticed: a restore begins to be mended; every done send is to be asked about. Counts of the last
-- 72 hours are kept: they are still shown.
INSERT INTO broker_restore (id, noticed_ms) VALUES (1, ?)
ON CONFLICT (id) DO UPDATE SET noticed_ms = excluded.noticed_ms, scanned = 0,
  forgotten = iif(noticed_ms < excluded.noticed_ms - 259200000, 0, forgotten),
  lost = iif(noticed_ms < excluded.noticed_ms - 259200000, 0, lost);

-- restore_count: add the result of one page to the counts.
UPDATE broker_restore SET forgotten = forgotten + ?, lost = lost + ?;

-- restore_scanned: note that the broker was asked about every done send.
UPDATE broker_restore SET scanned = 1;

-- reoffer_add: put a forgotten send on the list of sends to offer again.
INSERT INTO reoffer (row_id, position) VALUES (?, ?) ON CONFLICT DO NOTHING;

-- reoffer_empty: sends on the list whose payloads an operator has pruned, so that they cannot be offered.
SELECT r.row_id FROM reoffer AS r JOIN outbox AS o ON o.id = r.row_id WHERE o.payload = x'';

-- reoffer_page: sends of the list after a position, oldest first.
SELECT r.position, o.id, o.client_message_id, o.payload FROM reoffer AS r JOIN outbox AS o ON o.id = r.row_id
WHERE (r.position, r.row_id) > (?, ?) AND o.payload <> x'' ORDER BY r.position, r.row_id LIMIT ?;

-- done_resealed: give a done send another envelope, before it is offered again.
UPDATE outbox SET payload = ? WHERE id = ? AND status = 'done' AND payload <> x'';

-- reoffer_known: those of these rows, given as a JSON array, that are on the list.
SELECT r.row_id FROM json_each(?) AS wanted JOIN reoffer AS r ON r.row_id = wanted.value;

-- reoffer_counts: the number of sends on the list, the number refused of them, and one of the refusals.
SELECT count(*), count(error), max(error) FROM reoffer;

-- reoffer_refused: note that the broker refuses a send for now.
UPDATE reoffer SET error = ? WHERE row_id = ?;

-- reoffer_done: remove a send from the list.
DELETE FROM reoffer WHERE row_id = ?;

-- done_note: write a note for operators to a done send.
UPDATE outbox SET last_error = ? WHERE id = ? AND status = 'done';

-- accepted_anew: write the new ids of a forgotten send that the broker has accepted again.
UPDATE outbox SET broker_message_id = ?, history_id = ?, last_error = NULL WHERE id = ? AND status = 'done';

-- prunable: done and aborted rows that still have their payload.
SELECT * FROM (SELECT rowid, length(payload) FROM outbox WHERE status = 'done' AND payload <> x'' LIMIT ?)
UNION ALL
SELECT * FROM (SELECT rowid, length(payload) FROM outbox WHERE status = 'aborted' AND payload <> x'' LIMIT ?);

-- prune: drop a payload. Id and fingerprint stay.
UPDATE outbox SET payload = x'' WHERE rowid = ?;

-- oldest_pending: the lived time at which the oldest pending send was accepted.
SELECT lived_ms FROM outbox INDEXED BY outbox_pending WHERE status = 'pending' ORDER BY rowid LIMIT 1;

-- activity: how many sends have an id in each of these ranges, each counted up to a limit.
SELECT (SELECT count(*) FROM (SELECT 1 FROM outbox
                              WHERE id >= json_extract(w.value, '$[0]') AND id < json_extract(w.value, '$[1]') LIMIT ?2))
FROM json_each(?1) AS w ORDER BY w.key;
