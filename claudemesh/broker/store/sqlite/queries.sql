-- mesh_insert: insert a mesh.
INSERT INTO mesh (id, slug, clone_concurrency_policy, dedupe_retention_mode, dedupe_retention_days,
                  message_retention_days, rate_limit_per_minute, member_rate_limit_per_minute,
                  member_bytes_per_minute, stored_bytes, member_stored_bytes, member_topics,
                  member_subscriptions, member_invites, audit_retention_days, audit_events, created_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (slug) DO NOTHING;

-- mesh_get: one mesh.
SELECT id, slug, created_at, clone_concurrency_policy, dedupe_retention_mode, dedupe_retention_days,
       message_retention_days, rate_limit_per_minute, member_rate_limit_per_minute, member_bytes_per_minute,
       stored_bytes, member_stored_bytes, member_topics, member_subscriptions, member_invites,
       audit_retention_days, audit_events
FROM mesh WHERE id = ?;

-- mesh_update: change the policies of a mesh.
UPDATE mesh SET clone_concurrency_policy = ?, dedupe_retention_mode = ?, dedupe_retention_days = ?,
                message_retention_days = ?, rate_limit_per_minute = ?, member_rate_limit_per_minute = ?,
                member_bytes_per_minute = ?, stored_bytes = ?, member_stored_bytes = ?, member_topics = ?,
                member_subscriptions = ?, member_invites = ?, audit_retention_days = ?, audit_events = ?
WHERE id = ?;

-- mesh_list: every mesh, by slug.
SELECT id, slug, created_at, clone_concurrency_policy, dedupe_retention_mode, dedupe_retention_days,
       message_retention_days, rate_limit_per_minute, member_rate_limit_per_minute, member_bytes_per_minute,
       stored_bytes, member_stored_bytes, member_topics, member_subscriptions, member_invites,
       audit_retention_days, audit_events
FROM mesh ORDER BY slug;

-- mesh_move: keep the statement of a move, unless a later one is kept.
INSERT INTO mesh_move AS known (mesh_id, at_ms, statement) VALUES (?, ?, ?)
ON CONFLICT (mesh_id) DO UPDATE SET at_ms = excluded.at_ms, statement = excluded.statement
WHERE excluded.at_ms > known.at_ms;

-- mesh_moved: the statement of the latest move of a mesh.
SELECT statement FROM mesh_move WHERE mesh_id = ?;

-- member_insert: insert a member.
INSERT INTO member (id, mesh_id, name, role, status, ed25519_pubkey, x25519_pubkey, x25519_signature, key_id,
                    ephemeral, summary, presence_status, visible, created_at, ends_lived_ms)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- member_key_insert: insert a member's current key.
INSERT INTO member_key (key_id, mesh_id, member_id, ed25519_pubkey, x25519_pubkey, state, created_at)
VALUES (?, ?, ?, ?, ?, 'current', ?);

-- member_key_rotate_out: mark a key as rotated out, and return how many rotations came before it.
UPDATE member_key SET state = 'rotated_out', rotation = ?, rotated_out_at = ?
WHERE mesh_id = ? AND ed25519_pubkey = ? RETURNING position;

-- member_key_follow: insert the current key that follows a rotation.
INSERT INTO member_key (key_id, mesh_id, member_id, ed25519_pubkey, x25519_pubkey, state, created_at, position)
VALUES (?, ?, ?, ?, ?, 'current', ?, ?);

-- member_keys_prune: delete the oldest rotated-out keys of a member, up to a number of rotations.
DELETE FROM member_key WHERE mesh_id = ? AND member_id = ? AND state = 'rotated_out' AND position <= ?;

-- member_set_keys: set the current keys of a member.
UPDATE member SET ed25519_pubkey = ?, x25519_pubkey = ?, x25519_signature = ?, key_id = ?
WHERE mesh_id = ? AND id = ?;

-- member_by_key: the member that a key belongs to, present or past.
SELECT m.* FROM member_key AS k JOIN member AS m ON m.id = k.member_id
WHERE k.mesh_id = ? AND k.ed25519_pubkey = ?;

-- member_current_by_key: the member with this current key.
SELECT m.* FROM member_key AS k JOIN member AS m ON m.id = k.member_id
WHERE k.mesh_id = ? AND k.ed25519_pubkey = ? AND k.state = 'current';

-- sealing_key_taken: whether a member of the mesh has, or had, this x25519 key.
SELECT 1 FROM member_key WHERE mesh_id = ? AND x25519_pubkey = ? LIMIT 1;

-- member_by_name: whether an active member has this name, without regard to case.
SELECT 1 FROM member WHERE mesh_id = ? AND name = ? COLLATE NOCASE AND status = 'active';

-- member_id_taken: whether a member of any mesh has this id.
SELECT 1 FROM member WHERE id = ?;

-- member_list: every member that ever joined, by name.
SELECT * FROM member WHERE mesh_id = ? ORDER BY name COLLATE NOCASE, id;

-- earlier_keys: rotated-out keys and statements of some members, given as a JSON array of ids, oldest first.
SELECT k.member_id, k.ed25519_pubkey, k.rotation FROM json_each(?) AS w
CROSS JOIN member_key AS k INDEXED BY member_key_member ON k.member_id = w.value
WHERE k.state = 'rotated_out' ORDER BY k.position, k.created_at;

-- member_set_profile: change the given fields of a profile.
UPDATE member SET summary = coalesce(?, summary), presence_status = coalesce(?, presence_status),
                  visible = coalesce(?, visible), sessions = coalesce(?, sessions)
WHERE mesh_id = ? AND id = ?;

-- member_set_status: set the status: active, revoked or left.
UPDATE member SET status = ? WHERE mesh_id = ? AND id = ?;

-- member_seen: write when and on which host a member was last seen.
UPDATE member SET last_seen_at = ?, last_seen_host_fingerprint = coalesce(?, last_seen_host_fingerprint)
WHERE mesh_id = ? AND id = ?;

-- invite_register: insert an invite, unless it is registered already.
INSERT INTO invite (id, mesh_id, role, created_by, expires_at, max_uses, used_count, revoked_at)
VALUES (?, ?, ?, ?, ?, ?, 0, ?) ON CONFLICT (mesh_id, id) DO NOTHING;

-- invites_forget: delete expired invites of an inviter that were not used or revoked, except the newest.
DELETE FROM invite WHERE mesh_id = ?1 AND id IN (
  SELECT id FROM invite
  WHERE mesh_id = ?1 AND created_by = ?2 AND used_count = 0 AND revoked_at IS NULL AND expires_at <= ?3
  ORDER BY expires_at DESC, id DESC LIMIT -1 OFFSET ?4);

-- invite_get: one invite.
SELECT id, mesh_id, role, created_by, expires_at, max_uses, used_count, revoked_at FROM invite
WHERE mesh_id = ? AND id = ?;

-- invite_revoke: revoke an invite. An unknown one is inserted, because a join may bring it later.
INSERT INTO invite (id, mesh_id, role, created_by, expires_at, max_uses, used_count, revoked_at)
VALUES (?3, ?2, 'member', '', 0, 0, 0, ?1)
ON CONFLICT (mesh_id, id) DO UPDATE SET revoked_at = coalesce(revoked_at, excluded.revoked_at);

-- invite_take: take one use of an invite, if one is left.
UPDATE invite SET used_count = used_count + 1
WHERE mesh_id = ? AND id = ? AND used_count < max_uses AND revoked_at IS NULL AND expires_at > ?;

-- invite_take_late: take a use again that was taken before a restore.
UPDATE invite SET used_count = used_count + 1 WHERE mesh_id = ? AND id = ? AND used_count < max_uses;

-- invite_list: invites of a mesh by id.
SELECT id, mesh_id, role, created_by, expires_at, max_uses, used_count, revoked_at FROM invite
WHERE mesh_id = ? AND id > ? ORDER BY id LIMIT ?;

-- topic_insert: insert a topic or queue.
INSERT INTO topic (mesh_id, name, mode, created_by, created_at) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING;

-- topic_to_delete: mode and creator of a topic that may be deleted.
SELECT mode, created_by FROM topic WHERE mesh_id = ? AND name = ?;

-- queue_undelivered: the number of messages of a queue that no subscriber has acknowledged.
SELECT count(*) FROM delivery_queue WHERE mesh_id = ? AND queue = ?;

-- queue_drop: delete the messages of a queue that no subscriber has acknowledged.
DELETE FROM delivery_queue WHERE mesh_id = ? AND queue = ?;

-- topic_unsubscribe_all: remove all subscriptions of a topic.
DELETE FROM topic_subscription WHERE mesh_id = ? AND topic = ?;

-- topic_remove: delete a topic or queue.
DELETE FROM topic WHERE mesh_id = ? AND name = ?;

-- topic_deletion_note: write that a topic was deleted.
INSERT INTO topic_deletion (mesh_id, name, deleted_at) VALUES (?, ?, ?)
ON CONFLICT (mesh_id, name) DO UPDATE SET deleted_at = excluded.deleted_at;

-- topic_deletion_trim: delete the oldest of these notes, beyond a number.
DELETE FROM topic_deletion WHERE mesh_id = ?1 AND name IN (
  SELECT name FROM topic_deletion WHERE mesh_id = ?1 ORDER BY deleted_at DESC, name LIMIT -1 OFFSET ?2);

-- topic_deletion_forget: delete the note, because the topic is created again.
DELETE FROM topic_deletion WHERE mesh_id = ? AND name = ?;

-- topics_deleted: those names of a JSON array whose topics were deleted.
SELECT d.name FROM json_each(?2) AS w JOIN topic_deletion AS d ON d.mesh_id = ?1 AND d.name = w.value;

-- topic_exists: whether a topic or queue of this name exists.
SELECT 1 FROM topic WHERE mesh_id = ? AND name = ?;

-- topic_subscribe: insert a subscription, once.
INSERT INTO topic_subscription (mesh_id, topic, member_id, since) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING;

-- topic_backfill: insert deliveries to a subscriber for the newest posts since an id, in their order.
INSERT INTO delivery_queue (broker_message_id, mesh_id, recipient_member_id, priority, enqueued_at)
SELECT id, ?1, ?3, 1, ?5 FROM (
  SELECT t.id FROM topic_message AS t
  WHERE t.mesh_id = ?1 AND t.topic = ?2 AND t.id >= ?4 AND t.sender_member_id <> ?3
    AND NOT EXISTS (SELECT 1 FROM delivery_queue AS d
                    WHERE d.broker_message_id = t.id AND d.recipient_member_id = ?3)
  ORDER BY t.id DESC LIMIT ?6)
ORDER BY id;

-- topic_unsubscribe: remove a subscription.
DELETE FROM topic_subscription WHERE mesh_id = ? AND topic = ? AND member_id = ?;

-- topic_list: the topics of a mesh as one member sees them, with their active subscribers.
SELECT t.name, t.mode, t.created_at,
       EXISTS (SELECT 1 FROM topic_subscription AS s
               WHERE s.mesh_id = t.mesh_id AND s.topic = t.name AND s.member_id = ?2),
       CASE WHEN ?5 THEN
         (SELECT count(*) FROM topic_subscription AS s CROSS JOIN member AS m ON m.id = s.member_id
          WHERE s.mesh_id = t.mesh_id AND s.topic = t.name AND m.status = 'active') END,
       t.key_epoch,
       CASE WHEN ?5 AND t.key_epoch > 0 THEN
         (SELECT count(*) FROM topic_subscription AS s CROSS JOIN member AS m ON m.id = s.member_id
          WHERE s.mesh_id = t.mesh_id AND s.topic = t.name AND m.status = 'active' AND NOT EXISTS (
            SELECT 1 FROM topic_wrap AS w
            WHERE w.mesh_id = t.mesh_id AND w.topic = t.name AND w.key_epoch = t.key_epoch
              AND w.recipient_member_id = m.id AND w.recipient = m.ed25519_pubkey)) END
FROM topic AS t WHERE t.mesh_id = ?1 AND t.name > ?3 ORDER BY t.name LIMIT ?4;

-- dedupe_find: rows for a set of keys, given as a JSON array of [mesh, sender, id].
SELECT d.mesh_id, d.sender_member_id, d.client_message_id, d.broker_message_id, d.history_id,
       d.request_fingerprint, d.destination_kind, d.destination_ref, d.first_seen_at, d.history_available
FROM json_each(?) AS w JOIN client_message_dedupe AS d
  ON d.mesh_id = w.value ->> 0 AND d.sender_member_id = w.value ->> 1 AND d.client_message_id = w.value ->> 2;

-- sequence: the last id given out by a table.
SELECT seq FROM sqlite_sequence WHERE name = ?;

-- sender_active: whether a member may send, and its mesh's retention.
SELECT m.dedupe_retention_mode, m.dedupe_retention_days FROM member AS s JOIN mesh AS m ON m.id = s.mesh_id
WHERE s.mesh_id = ? AND s.id = ? AND s.status = 'active';

-- dm_recipient: the active member behind a key, present or rotated out.
SELECT m.id FROM member_key AS k JOIN member AS m ON m.id = k.member_id
WHERE k.mesh_id = ? AND k.ed25519_pubkey = ? AND k.state <> 'revoked' AND m.status = 'active';

-- topic_mode: the mode of a topic, topic or queue.
SELECT mode FROM topic WHERE mesh_id = ? AND name = ?;

-- topic_accepting: the mode of a topic, and the number of its present epoch.
SELECT mode, key_epoch, key_floor FROM topic WHERE mesh_id = ? AND name = ?;

-- topic_recipients: active subscribers.
SELECT s.member_id FROM topic_subscription AS s JOIN member AS m ON m.id = s.member_id
WHERE s.mesh_id = ? AND s.topic = ? AND m.status = 'active' ORDER BY s.member_id;

-- accept_dedupe: the claim of a send: its dedupe row.
INSERT INTO client_message_dedupe (mesh_id, client_message_id, broker_message_id, history_id, request_fingerprint,
  destination_kind, destination_ref, sender_member_id, first_seen_at, expires_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- accept_queue_body: the body of a dm or queue send.
INSERT INTO message_queue (id, mesh_id, client_message_id, destination_kind, destination_ref, sender_member_id,
  envelope, created_at, key_epoch)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?);

-- accept_topic_body: the body of a topic send.
INSERT INTO topic_message (id, mesh_id, client_message_id, topic, sender_member_id, envelope, created_at,
  key_epoch)
VALUES (?, ?, ?, ?, ?, ?, ?, ?);

-- accept_history: the message's place in the mesh's history.
INSERT INTO message_history (history_id, broker_message_id, mesh_id, destination_kind, destination_ref,
  sender_member_id, created_at)
VALUES (?, ?, ?, ?, ?, ?, ?);

-- accept_delivery: a delivery owed to a recipient.
INSERT INTO delivery_queue (delivery_id, broker_message_id, mesh_id, recipient_member_id, priority, enqueued_at,
  queue)
VALUES (?, ?, ?, ?, ?, ?, ?);

-- deliveries_due: the deliveries owed to a member, most urgent first, then oldest, except the ids in a JSON array.
SELECT d.delivery_id, d.broker_message_id, h.history_id, h.sender_member_id, s.name, s.ed25519_pubkey,
       d.enqueued_at, d.priority, coalesce(q.envelope, t.envelope)
FROM delivery_queue AS d
JOIN message_history AS h ON h.broker_message_id = d.broker_message_id
JOIN member AS s ON s.id = h.sender_member_id
LEFT JOIN message_queue AS q ON q.id = d.broker_message_id
LEFT JOIN topic_message AS t ON t.id = d.broker_message_id
WHERE d.recipient_member_id = ?2 AND d.mesh_id = ?1
  AND d.delivery_id NOT IN (SELECT value FROM json_each(?3))
ORDER BY d.priority, d.delivery_id LIMIT ?4;

-- queue_subscriptions: the queues that a member takes from; each is looked up, for a mesh has many subscriptions.
SELECT t.name FROM topic AS t
CROSS JOIN topic_subscription AS s ON s.mesh_id = t.mesh_id AND s.topic = t.name AND s.member_id = ?2
WHERE t.mesh_id = ?1 AND t.mode = 'queue';

-- queues_waiting: those of a JSON array of queues that have a message without a recipient.
SELECT q.value FROM json_each(?2) AS q WHERE EXISTS (
  SELECT 1 FROM delivery_queue AS d
  WHERE d.mesh_id = ?1 AND d.queue = q.value AND d.recipient_member_id = '');

-- queue_waiting: the oldest messages of a queue without a recipient that a member of a JSON array can open.
SELECT d.delivery_id, q.key_epoch FROM delivery_queue AS d
CROSS JOIN message_queue AS q ON q.id = d.broker_message_id
WHERE d.mesh_id = ?1 AND d.queue = ?2 AND d.recipient_member_id = ''
  AND (q.key_epoch IS NULL OR EXISTS (
    SELECT 1 FROM json_each(?4) AS m JOIN topic_wrap AS w
      ON w.mesh_id = ?1 AND w.topic = ?2 AND w.key_epoch = q.key_epoch AND w.recipient_member_id = m.value))
ORDER BY d.priority, d.delivery_id LIMIT ?3;

-- queue_key_holders: those members of a JSON array that have a wrap of the epochs of another one.
SELECT DISTINCT w.key_epoch, w.recipient_member_id FROM json_each(?3) AS e CROSS JOIN json_each(?4) AS m
CROSS JOIN topic_wrap AS w ON w.mesh_id = ?1 AND w.topic = ?2 AND w.key_epoch = e.value
  AND w.recipient_member_id = m.value;

-- queue_give: make a subscriber the recipient of a message.
UPDATE delivery_queue SET recipient_member_id = ? WHERE delivery_id = ? AND recipient_member_id = '';

-- queue_held: the deliveries of a JSON array of ids, with their recipients.
SELECT d.recipient_member_id, d.delivery_id, d.broker_message_id, h.history_id, h.sender_member_id, s.name,
       s.ed25519_pubkey, d.enqueued_at, d.priority, q.envelope
FROM json_each(?) AS w JOIN delivery_queue AS d ON d.delivery_id = w.value
JOIN message_history AS h ON h.broker_message_id = d.broker_message_id
JOIN member AS s ON s.id = h.sender_member_id
JOIN message_queue AS q ON q.id = d.broker_message_id
ORDER BY d.priority, d.delivery_id;

-- queue_release: return the messages of a member to their queues.
UPDATE delivery_queue SET recipient_member_id = ''
WHERE recipient_member_id = ?2 AND queue IS NOT NULL AND mesh_id = ?1 RETURNING queue;

-- queue_release_lost: return the messages of members without a lease to their queues.
UPDATE delivery_queue SET recipient_member_id = ''
WHERE queue IS NOT NULL AND recipient_member_id > ''
  AND NOT EXISTS (SELECT 1 FROM presence AS p
                  WHERE p.member_id = delivery_queue.recipient_member_id AND p.lease_until > ?1)
RETURNING mesh_id, queue;

-- acknowledge: delete acknowledged deliveries of a recipient.
DELETE FROM delivery_queue WHERE delivery_id = ? AND recipient_member_id = ? AND mesh_id = ?;

-- deliveries_pending: the number of all deliveries.
SELECT count(*) FROM delivery_queue;

-- deliveries_owed: the number of deliveries owed to each of these members, each counted up to a limit.
SELECT w.value, (SELECT count(*) FROM (SELECT 1 FROM delivery_queue WHERE recipient_member_id = w.value LIMIT ?2))
FROM json_each(?1) AS w;

-- presence_open: insert the lease of a connection.
INSERT OR REPLACE INTO presence (connection_id, member_id, mesh_id, broker_id, connected_at, lease_until, instance_id)
VALUES (?, ?, ?, ?, ?, ?, ?);

-- presence_renew: renew every lease of a broker.
UPDATE presence SET lease_until = ? WHERE broker_id = ?;

-- presence_close: delete the leases of connections that have ended.
DELETE FROM presence WHERE connection_id = ?;

-- presence_clear: delete every lease of a broker.
DELETE FROM presence WHERE broker_id = ?;

-- presence_online: the members that hold a lease.
SELECT DISTINCT member_id FROM presence WHERE mesh_id = ? AND lease_until > ?;

-- last_seen: when active and visible members of these ids, a JSON array, were seen last.
SELECT m.id, m.last_seen_at FROM json_each(?2) AS w JOIN member AS m ON m.id = w.value
WHERE m.mesh_id = ?1 AND m.status = 'active' AND m.visible AND m.last_seen_at IS NOT NULL;

-- present_seen: write the present time as last seen for the members with a lease of a broker.
UPDATE member SET last_seen_at = ?1
WHERE id IN (SELECT member_id FROM presence WHERE broker_id = ?2);

-- audit_write: append an audit event.
INSERT INTO audit_event (mesh_id, kind, member_id, data, created_at, lived_ms) VALUES (?, ?, ?, ?, ?, ?);

-- audit_list: audit events, the newest first.
SELECT mesh_id, kind, member_id, created_at, data FROM audit_event WHERE mesh_id = ? ORDER BY id DESC LIMIT ?;

-- epoch: the identity of the data, which a restore changes.
SELECT epoch FROM epoch;

-- renew_epoch: set a new identity of the data.
UPDATE epoch SET epoch = ?;

-- newest_history: the last history id that was given.
SELECT seq FROM sqlite_sequence WHERE name = 'message_history';

-- lived_clock: the position of the database's lived clock.
SELECT lived_ms, boot_id, boot_ms FROM lived_clock;

-- lived_clock_note: write the position of the lived clock.
INSERT INTO lived_clock (one, lived_ms, boot_id, boot_ms) VALUES (1, ?, ?, ?)
ON CONFLICT (one) DO UPDATE SET lived_ms = excluded.lived_ms, boot_id = excluded.boot_id, boot_ms = excluded.boot_ms;

-- horizon_note: write the newest history id at this lived time, unless one was written less than ?2 ms ago.
INSERT INTO history_horizon (lived_ms, history_id)
SELECT ?1, h.newest FROM (SELECT max(history_id) AS newest FROM message_history) AS h
WHERE h.newest > coalesce((SELECT max(history_id) FROM history_horizon), 0)
  AND ?1 - ?2 >= coalesce((SELECT max(lived_ms) FROM history_horizon), ?1 - ?2)
ON CONFLICT (lived_ms) DO NOTHING;

-- job_runs: the last run of each job.
SELECT job, lived_ms, finished_at, count, found FROM job_run;

-- job_note: write the last run of a job.
INSERT INTO job_run (job, lived_ms, finished_at, count, found) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (job) DO UPDATE SET lived_ms = excluded.lived_ms, finished_at = excluded.finished_at,
                                count = excluded.count, found = excluded.found;

-- retention: each mesh with the newest history id that is older than its retention in lived time, or 0.
SELECT m.id, coalesce((
  SELECT h.history_id FROM history_horizon AS h WHERE h.lived_ms <= ?1 - m.message_retention_days * 86400000
  ORDER BY h.lived_ms DESC LIMIT 1), 0)
FROM mesh AS m;

-- dedupe_retention: the same by the retention of ids, for meshes that delete ids.
SELECT m.id, coalesce((
  SELECT h.history_id FROM history_horizon AS h WHERE h.lived_ms <= ?1 - m.dedupe_retention_days * 86400000
  ORDER BY h.lived_ms DESC LIMIT 1), 0)
FROM mesh AS m WHERE m.dedupe_retention_mode = 'retention_scoped';

-- history_after: messages in the order of their acceptance.
SELECT history_id, broker_message_id, mesh_id FROM message_history
WHERE history_id > ? ORDER BY history_id LIMIT ?;

-- still_owed: the messages of a JSON array with a delivery.
SELECT w.value FROM json_each(?) AS w
WHERE EXISTS (SELECT 1 FROM delivery_queue AS d WHERE d.broker_message_id = w.value);

-- sweep_dedupe_mark: mark a dedupe row as swept: the id stays taken.
UPDATE client_message_dedupe SET history_available = 0
WHERE (mesh_id, sender_member_id, client_message_id) IN (
  SELECT b.mesh_id, b.sender_member_id, b.client_message_id
  FROM json_each(?1) AS w JOIN message_queue AS b ON b.id = w.value
  UNION ALL
  SELECT b.mesh_id, b.sender_member_id, b.client_message_id
  FROM json_each(?1) AS w JOIN topic_message AS b ON b.id = w.value);

-- sweep_queue_bodies: delete bodies of dms and queue messages.
DELETE FROM message_queue WHERE id IN (SELECT value FROM json_each(?));

-- sweep_topic_bodies: delete bodies of posts.
DELETE FROM topic_message WHERE id IN (SELECT value FROM json_each(?));

-- sweep_history: delete the history rows of these messages.
DELETE FROM message_history WHERE history_id = ?;

-- tombstone: insert a tombstone: a message existed, and when it was deleted.
INSERT INTO message_tombstone (broker_message_id, mesh_id, deleted_at, reason) VALUES (?, ?, ?, 'retention')
ON CONFLICT DO NOTHING;

-- expired_ids: the oldest swept ids of a mesh up to a history id whose own retention has passed.
SELECT d.mesh_id, d.sender_member_id, d.client_message_id, d.broker_message_id FROM (
  SELECT * FROM client_message_dedupe INDEXED BY client_message_dedupe_swept
  WHERE mesh_id = ?1 AND history_id <= ?2 AND NOT history_available AND expires_at IS NOT NULL
  ORDER BY history_id LIMIT ?4) AS d
WHERE d.history_id <= (
  SELECT h.history_id FROM history_horizon AS h WHERE h.lived_ms <= ?3 - (d.expires_at - d.first_seen_at)
  ORDER BY h.lived_ms DESC LIMIT 1);

-- forget_id: delete a dedupe row, so that the id may be used again.
DELETE FROM client_message_dedupe WHERE mesh_id = ? AND sender_member_id = ? AND client_message_id = ?;

-- forget_tombstone: delete the tombstone of the id.
DELETE FROM message_tombstone WHERE broker_message_id = ?;

-- absent_ephemerals: ephemeral members without a lease.
SELECT m.mesh_id, m.id, m.last_seen_at FROM member AS m
WHERE m.ephemeral = 1 AND m.status = 'active'
  AND NOT EXISTS (SELECT 1 FROM presence AS p WHERE p.member_id = m.id AND p.lease_until > ?1)
ORDER BY m.created_at LIMIT ?2;

-- end_ephemerals: make ephemeral members leave whose time is over, connected or not.
UPDATE member SET status = 'left' WHERE id IN (
  SELECT id FROM member WHERE ephemeral = 1 AND status = 'active' AND ends_lived_ms <= ?1 LIMIT ?2)
RETURNING mesh_id, id;

-- reap_ephemeral: make an ephemeral member leave, unless it was seen since.
UPDATE member SET status = 'left'
WHERE mesh_id = ?1 AND id = ?2 AND status = 'active' AND last_seen_at IS ?3
  AND NOT EXISTS (SELECT 1 FROM presence AS p WHERE p.member_id = ?2 AND p.lease_until > ?4);

-- check_dedupe: ids in the order of their key, each with the rows that must exist with it.
SELECT d.mesh_id, d.sender_member_id, d.client_message_id, d.broker_message_id, d.history_available,
  EXISTS (SELECT 1 FROM message_queue AS b WHERE b.id = d.broker_message_id)
    OR EXISTS (SELECT 1 FROM topic_message AS b WHERE b.id = d.broker_message_id) AS has_body,
  EXISTS (SELECT 1 FROM message_history AS h WHERE h.broker_message_id = d.broker_message_id) AS has_history,
  EXISTS (SELECT 1 FROM message_tombstone AS t WHERE t.broker_message_id = d.broker_message_id) AS has_tombstone
FROM client_message_dedupe AS d
WHERE (d.mesh_id, d.sender_member_id, d.client_message_id) > (?, ?, ?)
ORDER BY d.mesh_id, d.sender_member_id, d.client_message_id LIMIT ?;

-- check_queue_bodies: bodies without a dedupe row.
SELECT b.id, EXISTS (SELECT 1 FROM client_message_dedupe AS d WHERE d.mesh_id = b.mesh_id
  AND d.sender_member_id = b.sender_member_id AND d.client_message_id = b.client_message_id
  AND d.broker_message_id = b.id)
FROM message_queue AS b WHERE b.id > ? ORDER BY b.id LIMIT ?;

-- check_topic_bodies: the same for posts.
SELECT b.id, EXISTS (SELECT 1 FROM client_message_dedupe AS d WHERE d.mesh_id = b.mesh_id
  AND d.sender_member_id = b.sender_member_id AND d.client_message_id = b.client_message_id
  AND d.broker_message_id = b.id)
FROM topic_message AS b WHERE b.id > ? ORDER BY b.id LIMIT ?;

-- check_history: history and deliveries must have a body; a body has its id.
SELECT h.broker_message_id, EXISTS (SELECT 1 FROM message_queue AS b WHERE b.id = h.broker_message_id)
  OR EXISTS (SELECT 1 FROM topic_message AS b WHERE b.id = h.broker_message_id), h.history_id
FROM message_history AS h WHERE h.history_id > ? ORDER BY h.history_id LIMIT ?;

-- check_deliveries: the same for deliveries.
SELECT q.broker_message_id, EXISTS (SELECT 1 FROM message_queue AS b WHERE b.id = q.broker_message_id)
  OR EXISTS (SELECT 1 FROM topic_message AS b WHERE b.id = q.broker_message_id), q.delivery_id
FROM delivery_queue AS q WHERE q.delivery_id > ? ORDER BY q.delivery_id LIMIT ?;

-- directory_version: the newest version of a mesh's member list.
SELECT version, token FROM directory WHERE mesh_id = ?;

-- directory_token: the token of a version, if it is still kept.
SELECT token FROM directory_token WHERE mesh_id = ? AND version = ?;

-- directory_changes: members changed after a version, in that order, without those that joined and left since.
SELECT * FROM member INDEXED BY member_changed
WHERE mesh_id = ?1 AND changed_version > ?2 AND (status <> 'left' OR joined_version <= ?3)
ORDER BY changed_version LIMIT ?4;

-- directory_listed: members that have not left, in the order of their last change.
SELECT * FROM member INDEXED BY member_listed WHERE mesh_id = ? AND changed_version > ? AND status <> 'left'
ORDER BY changed_version LIMIT ?;

-- members_by_name: members in the order of their names and ids.
SELECT * FROM member INDEXED BY member_name_order
WHERE mesh_id = ?1 AND (name COLLATE NOCASE, id) > (?2 COLLATE NOCASE, ?3)
ORDER BY name COLLATE NOCASE, id LIMIT ?4;

-- member_named: the active member of a name, else the one that had it last.
SELECT * FROM member WHERE mesh_id = ? AND name = ? COLLATE NOCASE
ORDER BY status = 'active' DESC, changed_version DESC LIMIT 1;

-- member_of_id: the member of an id.
SELECT * FROM member WHERE mesh_id = ? AND id = ?;

-- members_privileged: active owners and admins.
SELECT id FROM member INDEXED BY member_privileged
WHERE role IN ('owner', 'admin') AND role <> 'member' AND mesh_id = ? AND status = 'active';

-- directory_versions: the newest versions of some meshes, given as a JSON array of their ids.
SELECT d.mesh_id, d.version, d.token FROM json_each(?) AS w JOIN directory AS d ON d.mesh_id = w.value;

-- stored_add: add bytes to the stored bytes of a member.
INSERT INTO stored_bytes (mesh_id, member_id, kind, bytes) VALUES (?, ?, ?, ?)
ON CONFLICT (mesh_id, member_id, kind) DO UPDATE SET bytes = bytes + excluded.bytes;

-- stored: the bytes that each member of a mesh has stored.
SELECT member_id, sum(bytes) FROM stored_bytes WHERE mesh_id = ? GROUP BY member_id;

-- stored_all: every count.
SELECT mesh_id, member_id, kind, bytes FROM stored_bytes;

-- stored_queue_after: bodies of dms and queue messages up to an id, by member, from one id on.
SELECT max(id), mesh_id, sender_member_id, sum(length(envelope)) FROM (
  SELECT id, mesh_id, sender_member_id, envelope FROM message_queue WHERE id > ?1 AND id <= ?2 ORDER BY id LIMIT ?3)
GROUP BY mesh_id, sender_member_id;

-- stored_topic_after: the same for posts.
SELECT max(id), mesh_id, sender_member_id, sum(length(envelope)) FROM (
  SELECT id, mesh_id, sender_member_id, envelope FROM topic_message WHERE id > ?1 AND id <= ?2 ORDER BY id LIMIT ?3)
GROUP BY mesh_id, sender_member_id;

-- newest_queue_body: the greatest id of a dm or queue message.
SELECT coalesce(max(id), '') FROM message_queue;

-- newest_topic_body: the greatest id of a post.
SELECT coalesce(max(id), '') FROM topic_message;

-- topics_made: the number of topics and queues that a member has created.
SELECT count(*) FROM topic WHERE mesh_id = ? AND created_by = ?;

-- subscriptions_held: the number of topics and queues to which a member is subscribed.
SELECT count(*) FROM topic_subscription WHERE mesh_id = ? AND member_id = ?;

-- invites_open: the number of invites of a member that can still be used.
SELECT count(*) FROM invite
WHERE mesh_id = ? AND created_by = ? AND revoked_at IS NULL AND used_count < max_uses AND expires_at > ?;

-- audit_stamp: stamp events of a schema without lived time with the time of the upgrade.
UPDATE audit_event SET lived_ms = ?1 WHERE id IN (SELECT id FROM audit_event WHERE lived_ms = 0 LIMIT ?2);

-- audit_prune: delete the oldest events of a mesh, past their retention or beyond their number.
DELETE FROM audit_event WHERE id IN (SELECT id FROM audit_event WHERE mesh_id = ?1 ORDER BY id LIMIT ?4)
  AND (lived_ms < ?2 OR id <= (SELECT id FROM audit_event WHERE mesh_id = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?3));

-- acting: some members, and the active owners of the mesh.
SELECT * FROM member WHERE mesh_id = ?1 AND (id = ?2 OR id = ?3
  OR id IN (SELECT o.id FROM member AS o INDEXED BY member_privileged
            WHERE o.role = 'owner' AND o.role <> 'member' AND o.mesh_id = ?1 AND o.status = 'active'));

-- member_rename: change the name of an active member.
UPDATE member SET name = ? WHERE mesh_id = ? AND id = ? AND status = 'active';

-- member_set_role: change the role of a member.
UPDATE member SET role = ? WHERE mesh_id = ? AND id = ?;

-- statement_keep: write a statement in the place of an older one of its kind.
INSERT INTO member_statement (mesh_id, member_id, kind, subject, at_ms, body) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (member_id, kind, subject) DO UPDATE SET at_ms = excluded.at_ms, body = excluded.body
WHERE excluded.at_ms > at_ms;

-- statements: the statements that the entries of some members carry, given as a JSON array of their ids.
SELECT s.member_id, s.body FROM json_each(?) AS w JOIN member_statement AS s ON s.member_id = w.value
ORDER BY s.at_ms DESC, s.kind;

-- statement_at: the time of the latest statement of a kind about a member.
SELECT at_ms FROM member_statement WHERE member_id = ? AND kind = ? AND subject = ?;

-- departed: ephemeral members of a mesh that have left, in the order of their last change.
SELECT id, changed_version FROM member INDEXED BY member_departed
WHERE mesh_id = ? AND ephemeral = 1 AND status = 'left' AND changed_version > ?
ORDER BY changed_version LIMIT ?;

-- departed_unsubscribe: delete the subscriptions of some members.
DELETE FROM topic_subscription WHERE member_id IN (SELECT value FROM json_each(?));

-- departed_deliveries: delete what some members are owed. Messages of queues go back to their queues by themselves.
DELETE FROM delivery_queue WHERE delivery_id IN (
  SELECT d.delivery_id FROM json_each(?1) AS w CROSS JOIN delivery_queue AS d ON d.recipient_member_id = w.value
  WHERE d.queue IS NULL LIMIT ?2);

-- departed_done: those of some members that are owed nothing, and of which no message is stored.
SELECT w.value FROM json_each(?2) AS w
WHERE NOT EXISTS (SELECT 1 FROM client_message_dedupe AS d
                  WHERE d.mesh_id = ?1 AND d.sender_member_id = w.value AND d.history_available)
  AND NOT EXISTS (SELECT 1 FROM delivery_queue AS q WHERE q.recipient_member_id = w.value)
  AND NOT EXISTS (SELECT 1 FROM presence AS p WHERE p.member_id = w.value);

-- departed_stored: delete the count of stored bytes of a member.
DELETE FROM stored_bytes WHERE mesh_id = ? AND member_id = ?;

-- departed_forget: delete a member that has left, with its keys.
DELETE FROM member WHERE mesh_id = ? AND id = ? AND status = 'left';

-- departed_tokens: delete the tokens of the versions before the last change of a deleted member.
DELETE FROM directory_token WHERE mesh_id = ? AND version < ?;

-- statement_inherit: carry the replacements on by which the member with this id had replaced others.
INSERT INTO member_statement (mesh_id, member_id, kind, subject, at_ms, body)
SELECT mesh_id, ?1, kind, subject, at_ms, body FROM member_statement WHERE member_id = ?2 AND kind = 'replacement'
ON CONFLICT DO NOTHING;

-- topic_key_state: mode and present epoch of a topic, whether the next epoch is wanted, and the floor.
SELECT mode, key_epoch, rekey_wanted AND key_epoch > 0, key_floor FROM topic WHERE mesh_id = ? AND name = ?;

-- topic_epochs: those epochs of a topic that a JSON array lists, oldest first.
SELECT key_epoch, commitment, previous_commitment, created_by, signature, created_at FROM topic_epoch
WHERE mesh_id = ? AND topic = ? AND key_epoch IN (SELECT value FROM json_each(?)) ORDER BY key_epoch;

-- topic_wraps: the wraps of a member of the epochs that a JSON array lists, those for its present key first.
SELECT w.key_epoch, w.recipient, w.wrapped_by, w.nonce, w.ciphertext, w.signature
FROM json_each(?4) AS e JOIN topic_wrap AS w
  ON w.mesh_id = ?1 AND w.topic = ?2 AND w.key_epoch = e.value AND w.recipient_member_id = ?3
ORDER BY w.key_epoch DESC,
         w.recipient = (SELECT m.ed25519_pubkey FROM member AS m WHERE m.id = w.recipient_member_id) DESC,
         w.wrapped_by;

-- topic_key_missing: active subscribers without a wrap of the current epoch for their present key; all of them when
-- the next epoch is wanted.
SELECT m.* FROM topic AS t
CROSS JOIN topic_subscription AS s ON s.mesh_id = t.mesh_id AND s.topic = t.name
CROSS JOIN member AS m ON m.id = s.member_id
WHERE t.mesh_id = ?1 AND t.name = ?2 AND m.status = 'active'
  AND (t.rekey_wanted = 1 OR NOT EXISTS (SELECT 1 FROM topic_wrap AS w
                  WHERE w.mesh_id = t.mesh_id AND w.topic = t.name AND w.key_epoch = t.key_epoch
                    AND w.recipient_member_id = m.id AND w.recipient = m.ed25519_pubkey))
ORDER BY s.member_id LIMIT ?3;

-- member_is_active: whether a member is active.
SELECT 1 FROM member WHERE mesh_id = ? AND id = ? AND status = 'active';

-- topic_epoch_commitment: the commitment of an epoch.
SELECT commitment FROM topic_epoch WHERE mesh_id = ? AND topic = ? AND key_epoch = ?;

-- topic_epochs_made: the number of epochs that a member has made since a lived time.
SELECT count(*) FROM topic_epoch WHERE mesh_id = ? AND made_by = ? AND made_lived_ms > ?;

-- topic_epoch_insert: insert an epoch.
INSERT INTO topic_epoch (mesh_id, topic, key_epoch, commitment, previous_commitment, created_by, signature, created_at,
  made_by, made_lived_ms)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- topic_epoch_current: make an epoch the present one of its topic.
UPDATE topic SET key_epoch = ?3, key_lived_ms = ?4, rekey_wanted = 0,
  key_floor = iif(?3 > key_epoch + 1, ?3 - 1, key_floor)
WHERE mesh_id = ?1 AND name = ?2;

-- topic_wrap_put: write a wrap for the present key of an active member, which has to be a subscriber or the member
-- ?10 where one is given, unless other wrappers have written enough.
INSERT INTO topic_wrap (mesh_id, topic, key_epoch, recipient_member_id, recipient, wrapped_by, nonce, ciphertext,
  signature)
SELECT ?1, ?2, ?3, m.id, ?4, ?5, ?6, ?7, ?8 FROM member_key AS k JOIN member AS m ON m.id = k.member_id
WHERE k.mesh_id = ?1 AND k.ed25519_pubkey = ?4 AND k.state = 'current' AND m.status = 'active'
  AND (?10 IS NULL OR m.id = ?10 OR EXISTS (
    SELECT 1 FROM topic_subscription AS s WHERE s.mesh_id = ?1 AND s.topic = ?2 AND s.member_id = m.id))
  AND (SELECT count(*) FROM topic_wrap AS w
       WHERE w.mesh_id = ?1 AND w.topic = ?2 AND w.key_epoch = ?3 AND w.recipient_member_id = m.id
         AND w.recipient = ?4 AND w.wrapped_by <> ?5) < ?9
ON CONFLICT DO UPDATE SET nonce = excluded.nonce, ciphertext = excluded.ciphertext, signature = excluded.signature
WHERE nonce <> excluded.nonce
RETURNING recipient_member_id;

-- topic_key_want: mark that the next epoch of a topic is wanted.
UPDATE topic SET rekey_wanted = 1 WHERE mesh_id = ? AND name = ? RETURNING key_epoch > 0;

-- topic_keys_wanted: topics whose next epoch is wanted.
SELECT name FROM topic WHERE mesh_id = ? AND rekey_wanted = 1 AND key_epoch > 0 ORDER BY name LIMIT ?;

-- topic_keys_wanted_of: topics of a member whose next epoch is wanted.
SELECT t.name FROM (SELECT s.topic FROM topic_subscription AS s WHERE s.member_id = ?2
                    UNION SELECT w.topic FROM topic_wrap AS w WHERE w.recipient_member_id = ?2) AS o
JOIN topic AS t ON t.mesh_id = ?1 AND t.name = o.topic
WHERE t.rekey_wanted = 1 AND t.key_epoch > 0 ORDER BY t.name LIMIT ?3;

-- topic_holders: those members of a JSON array that are active and have a wrap of a topic; ?4: and subscribe to it.
SELECT m.id FROM json_each(?3) AS e JOIN member AS m ON m.id = e.value AND m.mesh_id = ?1 AND m.status = 'active'
WHERE EXISTS (SELECT 1 FROM topic_wrap AS w INDEXED BY topic_wrap_recipient
              WHERE w.recipient_member_id = m.id AND w.topic = ?2)
  AND (NOT ?4 OR EXISTS (
    SELECT 1 FROM topic_subscription AS s WHERE s.mesh_id = ?1 AND s.topic = ?2 AND s.member_id = m.id));

-- topic_key_audience: those members of a JSON array that are active, and subscribe to a topic or have a wrap of it.
SELECT m.id FROM json_each(?3) AS e JOIN member AS m ON m.id = e.value AND m.mesh_id = ?1 AND m.status = 'active'
WHERE EXISTS (SELECT 1 FROM topic_subscription AS s WHERE s.mesh_id = ?1 AND s.topic = ?2 AND s.member_id = m.id)
   OR EXISTS (SELECT 1 FROM topic_wrap AS w INDEXED BY topic_wrap_recipient
              WHERE w.recipient_member_id = m.id AND w.topic = ?2);

-- queue_epochs_waiting: the epochs of the messages of a queue without a recipient.
SELECT DISTINCT q.key_epoch FROM delivery_queue AS d JOIN message_queue AS q ON q.id = d.broker_message_id
WHERE d.mesh_id = ? AND d.queue = ? AND d.recipient_member_id = '' AND q.key_epoch IS NOT NULL;

-- topic_key_owed: whether a message under an epoch was accepted since a member subscribed, or waits in a queue.
SELECT EXISTS (SELECT 1 FROM topic_message AS b INDEXED BY topic_message_epoch
               WHERE b.mesh_id = ?1 AND b.topic = ?2 AND b.key_epoch = ?4 AND b.created_at >= s.since)
    OR EXISTS (SELECT 1 FROM message_queue AS b INDEXED BY message_queue_epoch
               JOIN delivery_queue AS d ON d.broker_message_id = b.id
               WHERE b.mesh_id = ?1 AND b.destination_ref = ?2 AND b.key_epoch = ?4)
FROM topic_subscription AS s WHERE s.mesh_id = ?1 AND s.topic = ?2 AND s.member_id = ?3;

-- topic_keys_old: mark that the next epoch is wanted of topics whose epoch was made before a lived time.
UPDATE topic SET rekey_wanted = 1 WHERE (mesh_id, name) IN (
  SELECT mesh_id, name FROM topic WHERE key_epoch > 0 AND rekey_wanted = 0 AND key_lived_ms < ?1 LIMIT ?2);

-- topic_epochs_past: epochs that are not accepted any more and have a part that no message needs, with whether a
-- message under them is stored. The newest epoch of a deleted topic stays as long as the deletion is known.
SELECT mesh_id, topic, key_epoch, is_stored FROM (
  SELECT e.mesh_id, e.topic, e.key_epoch, e.made_lived_ms,
         EXISTS (SELECT 1 FROM topic_wrap AS w
                 WHERE w.mesh_id = e.mesh_id AND w.topic = e.topic AND w.key_epoch = e.key_epoch) AS has_wraps,
         EXISTS (SELECT 1 FROM topic_message AS b INDEXED BY topic_message_epoch
                 JOIN delivery_queue AS d ON d.broker_message_id = b.id
                 WHERE b.mesh_id = e.mesh_id AND b.topic = e.topic AND b.key_epoch = e.key_epoch)
      OR EXISTS (SELECT 1 FROM message_queue AS b INDEXED BY message_queue_epoch
                 JOIN delivery_queue AS d ON d.broker_message_id = b.id
                 WHERE b.mesh_id = e.mesh_id AND b.destination_ref = e.topic AND b.key_epoch = e.key_epoch) AS is_owed,
         EXISTS (SELECT 1 FROM topic_message AS b INDEXED BY topic_message_epoch
                 WHERE b.mesh_id = e.mesh_id AND b.topic = e.topic AND b.key_epoch = e.key_epoch)
      OR EXISTS (SELECT 1 FROM message_queue AS b INDEXED BY message_queue_epoch
                 WHERE b.mesh_id = e.mesh_id AND b.destination_ref = e.topic AND b.key_epoch = e.key_epoch)
      OR t.name IS NULL AND EXISTS (SELECT 1 FROM topic_deletion AS g WHERE g.mesh_id = e.mesh_id AND g.name = e.topic)
        AND NOT EXISTS (SELECT 1 FROM topic_epoch AS n
                        WHERE n.mesh_id = e.mesh_id AND n.topic = e.topic AND n.key_epoch > e.key_epoch) AS is_stored
  FROM topic_epoch AS e LEFT JOIN topic AS t ON t.mesh_id = e.mesh_id AND t.name = e.topic
  WHERE e.made_lived_ms < ?2 AND (t.name IS NULL OR e.key_epoch <= t.key_epoch - ?1))
WHERE NOT is_stored OR has_wraps AND NOT is_owed
ORDER BY made_lived_ms LIMIT ?3;

-- topic_wraps_delete: delete the wraps of an epoch.
DELETE FROM topic_wrap WHERE mesh_id = ? AND topic = ? AND key_epoch = ?;

-- topic_epoch_delete: delete an epoch.
DELETE FROM topic_epoch WHERE mesh_id = ? AND topic = ? AND key_epoch = ?;

-- history_keys: the keys that a member has or had.
SELECT ed25519_pubkey FROM member_key WHERE mesh_id = ? AND member_id = ?;

-- history_refs_sent: the keys that a member has sent dms to, one look-up for each.
WITH RECURSIVE refs (ref) AS (
  SELECT min(destination_ref) FROM message_history INDEXED BY message_history_sent
  WHERE mesh_id = ?1 AND sender_member_id = ?2 AND destination_kind = 'dm'
  UNION ALL
  SELECT (SELECT min(h.destination_ref) FROM message_history AS h INDEXED BY message_history_sent
          WHERE h.mesh_id = ?1 AND h.sender_member_id = ?2 AND h.destination_kind = 'dm'
            AND h.destination_ref > refs.ref)
  FROM refs WHERE refs.ref IS NOT NULL)
SELECT ref FROM refs WHERE ref IS NOT NULL;

-- history_refs_taken: the queues that a member has taken messages from, one look-up for each.
WITH RECURSIVE refs (ref) AS (
  SELECT min(destination_ref) FROM message_history INDEXED BY message_history_taken
  WHERE mesh_id = ?1 AND taken_by = ?2
  UNION ALL
  SELECT (SELECT min(h.destination_ref) FROM message_history AS h INDEXED BY message_history_taken
          WHERE h.mesh_id = ?1 AND h.taken_by = ?2 AND h.destination_ref > refs.ref)
  FROM refs WHERE refs.ref IS NOT NULL)
SELECT ref FROM refs WHERE ref IS NOT NULL;

-- history_periods: the periods of a member's subscriptions, of one topic or of all.
SELECT topic, after_history, until_history FROM topic_period
WHERE member_id = ?2 AND mesh_id = ?1 AND (?3 IS NULL OR topic = ?3);

-- history_to: ids of messages to a key or topic between two ids.
SELECT history_id FROM message_history INDEXED BY message_history_destination
WHERE mesh_id = ?1 AND destination_kind = ?2 AND destination_kind <> 'queue' AND destination_ref = ?3
  AND history_id > ?5 AND history_id < ?6 AND ?4 IS NOT NULL
ORDER BY history_id ASC LIMIT ?7;

-- history_from: the same for the dms of a member to a key.
SELECT history_id FROM message_history INDEXED BY message_history_sent
WHERE mesh_id = ?1 AND destination_kind = 'dm' AND ?2 = 'dm' AND destination_ref = ?3 AND sender_member_id = ?4
  AND history_id > ?5 AND history_id < ?6
ORDER BY history_id ASC LIMIT ?7;

-- history_taken: the same for the messages that a member took from a queue.
SELECT history_id FROM message_history INDEXED BY message_history_taken
WHERE mesh_id = ?1 AND ?2 = 'queue' AND destination_ref = ?3 AND taken_by = ?4
  AND history_id > ?5 AND history_id < ?6
ORDER BY history_id ASC LIMIT ?7;

-- history_rows: the messages of a JSON array of history ids, as deliveries.
SELECT 0, h.broker_message_id, h.history_id, h.sender_member_id, s.name, s.ed25519_pubkey, h.created_at, 1,
       coalesce(q.envelope, t.envelope)
FROM json_each(?) AS w CROSS JOIN message_history AS h ON h.history_id = w.value
JOIN member AS s ON s.id = h.sender_member_id
LEFT JOIN message_queue AS q ON q.id = h.broker_message_id
LEFT JOIN topic_message AS t ON t.id = h.broker_message_id;

-- history_pruned: the history id that messages of a mesh are deleted below.
SELECT before FROM history_pruned WHERE mesh_id = ?;

-- history_prune: write that messages up to a history id were deleted.
INSERT INTO history_pruned AS known (mesh_id, before) VALUES (?, ?)
ON CONFLICT (mesh_id) DO UPDATE SET before = max(known.before, excluded.before);

-- sweep_periods: delete periods of subscriptions whose posts are all deleted.
DELETE FROM topic_period WHERE until_history < (SELECT min(history_id) FROM message_history);

-- history_reach: let the open period of a subscription begin with the first post since an id.
UPDATE topic_period SET after_history = coalesce((
  SELECT min(after_history, h.history_id - 1) FROM message_history AS h WHERE h.broker_message_id = (
    SELECT min(t.id) FROM topic_message AS t WHERE t.mesh_id = ?1 AND t.topic = ?2 AND t.id >= ?4)), after_history)
WHERE member_id = ?3 AND mesh_id = ?1 AND topic = ?2 AND until_history IS NULL;
