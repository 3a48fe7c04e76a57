-- Statements that move a row take the status after it first and the status before it last, both from the table of
-- states (outbox/states.py). Literals stand where an index needs them.

-- find_many: rows for a set of client_message_ids, given as a JSON array.
SELECT o.id, o.client_message_id, o.status, o.request_fingerprint, o.last_error, o.broker_message_id,
       o.history_id, o.payload
FROM json_each(?) AS wanted JOIN outbox AS o ON o.client_message_id = wanted.value;

-- insert: a new send, pending.
INSERT INTO outbox (id, client_message_id, request_fingerprint, payload, enqueued_at, lived_ms, due_lived_ms, status,
                    priority)
VALUES (?, ?, ?, ?, ?, ?, 0, 'pending', ?);

-- promote: rows whose wait is over are ready.
UPDATE outbox SET due_lived_ms = 0 WHERE rowid IN (
  SELECT rowid FROM outbox INDEXED BY outbox_waiting
  WHERE status = 'pending' AND due_lived_ms > 0 AND due_lived_ms <= ? ORDER BY due_lived_ms LIMIT ?);

-- ready: pending rows that may go out now, most urgent first, then oldest.
SELECT id, client_message_id, payload, attempts FROM outbox INDEXED BY outbox_ready
WHERE status = 'pending' AND due_lived_ms = 0
ORDER BY priority, rowid LIMIT ?;

-- take_due: pending to inflight, with the broker's time when it first leaves.
UPDATE outbox SET status = ?, first_sent_broker_ms = coalesce(first_sent_broker_ms, ?) WHERE id = ? AND status = ?;

-- refuse: pending to dead, never sent as it is.
UPDATE outbox SET status = ?, last_error = ? WHERE id = ? AND status = ?;

-- settle_done: inflight or dead to done, with the broker's ids.
UPDATE outbox SET status = ?, broker_message_id = ?, history_id = ?, delivered_at = ?, done_lived_ms = ?,
  last_error = NULL
WHERE id = ? AND status = ?;

-- settle_dead: inflight to dead, with the reason.
UPDATE outbox SET status = ?, last_error = ?, attempts = attempts + 1 WHERE id = ? AND status = ?;

-- settle_retry: inflight back to pending, to be tried again later.
UPDATE outbox SET status = ?, last_error = ?, due_lived_ms = ?, attempts = attempts + 1
WHERE id = ? AND status = ?;

-- next_due: when the next row that waits for a retry is ready.
SELECT due_lived_ms FROM outbox INDEXED BY outbox_waiting
WHERE status = 'pending' AND due_lived_ms > 0 ORDER BY due_lived_ms LIMIT 1;

-- newest_stamp: the newest lived time in the file. The stamps of acceptance never decrease from row to row.
SELECT max(stamp) FROM (
  SELECT * FROM (SELECT lived_ms AS stamp FROM outbox ORDER BY rowid DESC LIMIT 1)
  UNION ALL
  SELECT max(done_lived_ms) FROM outbox WHERE status = 'done' AND payload <> x'');

-- stamp_unstamped: rows of a schema without lived time are as old as the upgrade.
UPDATE outbox SET lived_ms = ? WHERE status IN ('pending', 'inflight') AND lived_ms IS NULL;

-- stamp_undated: sends that were done under a schema without lived time were done at the upgrade.
UPDATE outbox SET done_lived_ms = ? WHERE status = 'done' AND payload <> x'' AND done_lived_ms IS NULL;

-- recover_inflight: what was in flight when the process died is unknown, so it is tried again.
UPDATE outbox SET status = ?, attempts = attempts + 1, due_lived_ms = 0, last_error = 'interrupted'
WHERE status = 'inflight';

-- clamp_waits: no row waits longer than the longest backoff after a start, whatever its stamp says.
UPDATE outbox SET due_lived_ms = ?1 WHERE status = 'pending' AND due_lived_ms > ?1;

-- too_old: pending rows accepted before a lived time. They are the oldest ones, so no other row is looked at.
SELECT id, client_message_id, length(payload), attempts, first_sent_broker_ms FROM (
  SELECT id, client_message_id, payload, attempts, lived_ms, first_sent_broker_ms
  FROM outbox INDEXED BY outbox_pending WHERE status = 'pending' ORDER BY rowid LIMIT ?2)
WHERE lived_ms < ?1;

-- sent_too_long_ago: pending rows that first left before a moment of the broker's time.
SELECT id, client_message_id, length(payload), attempts, first_sent_broker_ms FROM outbox INDEXED BY outbox_sent
WHERE status = 'pending' AND first_sent_broker_ms IS NOT NULL AND first_sent_broker_ms < ?1
ORDER BY first_sent_broker_ms LIMIT ?2;

-- get: one row by its id or its client_message_id.
SELECT * FROM outbox WHERE id = ?1 OR client_message_id = ?1 LIMIT 1;

-- totals: how many rows still matter by status, and the bytes that have not left yet. Read once, at start.
SELECT (SELECT count(*) FROM outbox WHERE status = 'pending'),
       (SELECT count(*) FROM outbox WHERE status = 'inflight'),
       (SELECT count(*) FROM outbox WHERE status = 'dead'),
       (SELECT coalesce(sum(length(payload)), 0) FROM outbox WHERE status IN ('pending', 'inflight'));

-- abort: dead or pending to aborted, perhaps with a successor.
UPDATE outbox SET status = ?, aborted_at = ?, aborted_by = ?, superseded_by = ? WHERE id = ? AND status = ?;

-- drop_payloads: done rows keep their payload for three days of lived time, or until they are offered again.
UPDATE outbox SET payload = x'' WHERE rowid IN (
  SELECT rowid FROM outbox WHERE status = 'done' AND payload <> x'' AND done_lived_ms < ?
  AND id NOT IN (SELECT row_id FROM reoffer) ORDER BY done_lived_ms LIMIT ?);

-- done_at: the done send that is so many places behind the newest one in the broker's order.
SELECT rowid, history_id, id, client_message_id, broker_message_id, payload <> x'' FROM outbox
WHERE status = 'done' AND last_error IS NULL ORDER BY history_id DESC, rowid DESC LIMIT 1 OFFSET ?;

-- done_before: done sends before a place in the broker's order, newest first.
SELECT rowid, history_id, id, client_message_id, broker_message_id, payload <> x'' FROM outbox
WHERE status = 'done' AND last_error IS NULL AND (history_id, rowid) < (?, ?)
ORDER BY history_id DESC, rowid DESC LIMIT ?;

-- restore_get: the restore that was noticed last.
SELECT noticed_ms, scanned, forgotten, lost FROM broker_restore;

-- restore_noticed: a restore begins to be mended; every done send is to be asked about. Counts of the last
-- 72 hours are kept: they are still shown.
INSERT INTO broker_restore (id, noticed_ms) VALUES (1, ?)
ON CONFLICT (id) DO UPDATE SET noticed_ms = excluded.noticed_ms, scanned = 0,
  forgotten = iif(noticed_ms < excluded.noticed_ms - 259200000, 0, forgotten),
  lost = iif(noticed_ms < excluded.noticed_ms - 259200000, 0, lost);

-- restore_count: what a page of questions has brought.
UPDATE broker_restore SET forgotten = forgotten + ?, lost = lost + ?;

-- restore_scanned: every done send was asked about.
UPDATE broker_restore SET scanned = 1;

-- reoffer_add: a forgotten send waits to be offered again.
INSERT INTO reoffer (row_id, position) VALUES (?, ?) ON CONFLICT DO NOTHING;

-- reoffer_empty: sends on the list whose payloads an operator has pruned; there is nothing left to offer.
SELECT r.row_id FROM reoffer AS r JOIN outbox AS o ON o.id = r.row_id WHERE o.payload = x'';

-- reoffer_page: sends to be offered again behind a place, oldest first.
SELECT r.position, o.id, o.client_message_id, o.payload FROM reoffer AS r JOIN outbox AS o ON o.id = r.row_id
WHERE (r.position, r.row_id) > (?, ?) AND o.payload <> x'' ORDER BY r.position, r.row_id LIMIT ?;

-- reoffer_known: which of these rows wait already, given as a JSON array.
SELECT r.row_id FROM json_each(?) AS wanted JOIN reoffer AS r ON r.row_id = wanted.value;

-- reoffer_counts: how many wait, how many of them were refused, and one of the refusals.
SELECT count(*), count(error), max(error) FROM reoffer;

-- reoffer_refused: the broker refuses it for now.
UPDATE reoffer SET error = ? WHERE row_id = ?;

-- reoffer_done: the broker has it again.
DELETE FROM reoffer WHERE row_id = ?;

-- done_note: what an operator should know of a done send.
UPDATE outbox SET last_error = ? WHERE id = ? AND status = 'done';

-- accepted_anew: a done send that the broker had forgotten and has accepted anew.
UPDATE outbox SET broker_message_id = ?, history_id = ?, last_error = NULL WHERE id = ? AND status = 'done';

-- prunable: rows that are over and still carry their payload.
SELECT * FROM (SELECT rowid, length(payload) FROM outbox WHERE status = 'done' AND payload <> x'' LIMIT ?)
UNION ALL
SELECT * FROM (SELECT rowid, length(payload) FROM outbox WHERE status = 'aborted' AND payload <> x'' LIMIT ?);

-- prune: the id and the fingerprint stay.
UPDATE outbox SET payload = x'' WHERE rowid = ?;

-- oldest_pending: the lived time at which the send that has waited longest was accepted.
SELECT lived_ms FROM outbox INDEXED BY outbox_pending WHERE status = 'pending' ORDER BY rowid LIMIT 1;
