-- mesh_insert: insert a mesh.
INSERT INTO mesh.mesh (id, slug, clone_concurrency_policy, dedupe_retention_mode, dedupe_retention_days,
                       message_retention_days, rate_limit_per_minute, member_rate_limit_per_minute,
                       member_bytes_per_minute, stored_bytes, member_stored_bytes, member_topics,
                       member_subscriptions, member_invites, audit_retention_days, audit_events, created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17) ON CONFLICT (slug) DO NOTHING;

-- mesh_get: one mesh.
SELECT id, slug, created_at, clone_concurrency_policy, dedupe_retention_mode, dedupe_retention_days,
       message_retention_days, rate_limit_per_minute, member_rate_limit_per_minute, member_bytes_per_minute,
       stored_bytes, member_stored_bytes, member_topics, member_subscriptions, member_invites,
       audit_retention_days, audit_events
FROM mesh.mesh WHERE id = $1;

-- mesh_list: every mesh, by slug.
SELECT id, slug, created_at, clone_concurrency_policy, dedupe_retention_mode, dedupe_retention_days,
       message_retention_days, rate_limit_per_minute, member_rate_limit_per_minute, member_bytes_per_minute,
       stored_bytes, member_stored_bytes, member_topics, member_subscriptions, member_invites,
       audit_retention_days, audit_events
FROM mesh.mesh ORDER BY slug;

-- mesh_move: keep the statement of a move, unless a later one is kept.
INSERT INTO mesh.mesh_move AS known (mesh_id, at_ms, statement) VALUES ($1, $2, $3)
ON CONFLICT (mesh_id) DO UPDATE SET at_ms = excluded.at_ms, statement = excluded.statement
WHERE excluded.at_ms > known.at_ms;

-- mesh_moved: the statement of the latest move of a mesh.
SELECT statement FROM mesh.mesh_move WHERE mesh_id = $1;

-- member_insert: insert a member.
INSERT INTO mesh.member (id, mesh_id, name, role, status, ed25519_pubkey, x25519_pubkey, x25519_signature, key_id,
                         ephemeral, summary, presence_status, visible, created_at, ends_lived_ms)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15);

-- member_key_insert: insert a member's current key.
INSERT INTO mesh.member_key (key_id, mesh_id, member_id, ed25519_pubkey, x25519_pubkey, state, created_at)
VALUES ($1, $2, $3, $4, $5, 'current', $6);

-- member_key_lock: the member that a key belongs to, present or past, locked: its rotations run one after another.
SELECT m.* FROM mesh.member_key AS k JOIN mesh.member AS m ON m.id = k.member_id
WHERE k.mesh_id = $1 AND k.ed25519_pubkey = $2 FOR UPDATE OF m;

-- member_key_rotate_out: mark a key as rotated out, and return how many rotations came before it.
UPDATE mesh.member_key SET state = 'rotated_out', rotation = $1, rotated_out_at = $2
WHERE mesh_id = $3 AND ed25519_pubkey = $4 RETURNING position;

-- member_key_follow: insert the current key that follows a rotation.
INSERT INTO mesh.member_key (key_id, mesh_id, member_id, ed25519_pubkey, x25519_pubkey, state, created_at, position)
VALUES ($1, $2, $3, $4, $5, 'current', $6, $7);

-- member_keys_prune: delete the oldest rotated-out keys of a member, up to a number of rotations.
DELETE FROM mesh.member_key WHERE mesh_id = $1 AND member_id = $2 AND state = 'rotated_out' AND position <= $3;

-- member_set_keys: set the current keys of a member.
UPDATE mesh.member SET ed25519_pubkey = $1, x25519_pubkey = $2, x25519_signature = $3, key_id = $4
WHERE mesh_id = $5 AND id = $6;

-- member_by_key: the member that a key belongs to, present or past.
SELECT m.* FROM mesh.member_key AS k JOIN mesh.member AS m ON m.id = k.member_id
WHERE k.mesh_id = $1 AND k.ed25519_pubkey = $2;

-- member_current_by_key: the member with this current key.
SELECT m.* FROM mesh.member_key AS k JOIN mesh.member AS m ON m.id = k.member_id
WHERE k.mesh_id = $1 AND k.ed25519_pubkey = $2 AND k.state = 'current';

-- sealing_key_taken: whether a member of the mesh has, or had, this x25519 key.
SELECT 1 FROM mesh.member_key WHERE mesh_id = $1 AND x25519_pubkey = $2 LIMIT 1;

-- member_by_name: whether an active member has this name, without regard to case.
SELECT 1 FROM mesh.member WHERE mesh_id = $1 AND lower(name) = lower($2) AND status = 'active';

-- member_id_taken: whether a member of any mesh has this id.
SELECT 1 FROM mesh.member WHERE id = $1;

-- invite_take_late: take a use again that was taken before a restore.
UPDATE mesh.invite SET used_count = used_count + 1 WHERE mesh_id = $1 AND id = $2 AND used_count < max_uses;

-- topic_backfill: insert deliveries to a subscriber for the newest posts since an id, in their order.
INSERT INTO mesh.delivery_queue (broker_message_id, mesh_id, recipient_member_id, priority, enqueued_at)
SELECT p.id, $1::uuid, $3::uuid, 1, $5::timestamptz FROM (
  SELECT t.id FROM mesh.topic_message AS t
  WHERE t.mesh_id = $1 AND t.topic = $2 AND t.id >= $4 AND t.sender_member_id <> $3
    AND NOT EXISTS (SELECT 1 FROM mesh.delivery_queue AS d
                    WHERE d.broker_message_id = t.id AND d.recipient_member_id = $3)
  ORDER BY t.id DESC LIMIT $6) AS p
ORDER BY p.id;

-- member_list: every member that ever joined, by name.
SELECT * FROM mesh.member WHERE mesh_id = $1 ORDER BY lower(name), id;

-- earlier_keys: rotated-out keys and statements of some members, oldest first.
SELECT k.member_id, k.ed25519_pubkey, k.rotation FROM unnest($2::uuid[]) AS w (id)
CROSS JOIN LATERAL (
  SELECT * FROM mesh.member_key AS e
  WHERE e.member_id = w.id AND e.mesh_id = $1 AND e.state = 'rotated_out' OFFSET 0) AS k
ORDER BY k.position, k.created_at;

-- member_set_profile: change the given fields of a profile.
UPDATE mesh.member SET summary = coalesce($1, summary), presence_status = coalesce($2, presence_status),
                       visible = coalesce($3, visible), sessions = coalesce($4, sessions)
WHERE mesh_id = $5 AND id = $6;

-- member_set_status: set the status: active, revoked or left.
UPDATE mesh.member SET status = $1 WHERE mesh_id = $2 AND id = $3;

-- members_seen: write when and on which host members were last seen. Rows are locked in one order, so that brokers
-- do not block
-- one another.
UPDATE mesh.member AS m SET last_seen_at = s.seen_at,
                            last_seen_host_fingerprint = coalesce(s.host, m.last_seen_host_fingerprint)
FROM (SELECT k.id, w.seen_at, w.host
      FROM unnest($1::uuid[], $2::uuid[], $3::timestamptz[], $4::bytea[]) AS w (mesh_id, id, seen_at, host)
      CROSS JOIN LATERAL (SELECT l.id FROM mesh.member AS l WHERE l.id = w.id AND l.mesh_id = w.mesh_id
                          LIMIT 1 FOR NO KEY UPDATE) AS k) AS s
WHERE m.id = s.id;

-- last_seen: when active and visible members of these ids were seen last.
SELECT id, last_seen_at FROM mesh.member
WHERE mesh_id = $1 AND id = ANY ($2::uuid[]) AND status = 'active' AND visible AND last_seen_at IS NOT NULL;

-- present_seen: write the present time as last seen for the members with a lease of a broker.
UPDATE mesh.member AS m SET last_seen_at = $1
WHERE m.id = ANY (ARRAY(SELECT p.member_id FROM mesh.presence AS p WHERE p.broker_id = $2));

-- invite_register: insert an invite, unless it is registered already.
INSERT INTO mesh.invite (id, mesh_id, role, created_by, expires_at, max_uses, used_count, revoked_at)
VALUES ($1, $2, $3, $4, $5, $6, 0, $7) ON CONFLICT (mesh_id, id) DO NOTHING;

-- invites_forget: delete expired invites of an inviter that were not used or revoked, except the newest.
DELETE FROM mesh.invite WHERE mesh_id = $1 AND id IN (
  SELECT id FROM mesh.invite
  WHERE mesh_id = $1 AND created_by = $2 AND used_count = 0 AND revoked_at IS NULL AND expires_at <= $3
  ORDER BY expires_at DESC, id DESC OFFSET $4);

-- invite_lock: one invite, locked until the end of the transaction: joins by it run one after another.
SELECT id, mesh_id, role, created_by, expires_at, max_uses, used_count, revoked_at FROM mesh.invite
WHERE mesh_id = $1 AND id = $2 FOR UPDATE;

-- invite_revoke: revoke an invite. An unknown one is inserted, because a join may bring it later.
INSERT INTO mesh.invite AS known (id, mesh_id, role, created_by, expires_at, max_uses, used_count, revoked_at)
VALUES ($3, $2, 'member', '', to_timestamp(0), 0, 0, $1)
ON CONFLICT (mesh_id, id) DO UPDATE SET revoked_at = coalesce(known.revoked_at, excluded.revoked_at);

-- invite_take: take one use of an invite, if one is left.
UPDATE mesh.invite SET used_count = used_count + 1
WHERE mesh_id = $1 AND id = $2 AND used_count < max_uses AND revoked_at IS NULL AND expires_at > $3;

-- invite_list: invites of a mesh by id.
SELECT id, mesh_id, role, created_by, expires_at, max_uses, used_count, revoked_at FROM mesh.invite
WHERE mesh_id = $1 AND id > $2 ORDER BY id LIMIT $3;

-- topic_insert: insert a topic or queue.
INSERT INTO mesh.topic (mesh_id, name, mode, created_by, created_at) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT DO NOTHING;

-- topic_to_delete: mode and creator of a topic that may be deleted.
SELECT mode, created_by::text FROM mesh.topic WHERE mesh_id = $1 AND name = $2 FOR UPDATE;

-- queue_undelivered: the number of messages of a queue that no subscriber has acknowledged.
SELECT count(*) FROM mesh.delivery_queue WHERE mesh_id = $1 AND queue = $2;

-- queue_drop: delete the messages of a queue that no subscriber has acknowledged.
DELETE FROM mesh.delivery_queue WHERE mesh_id = $1 AND queue = $2;

-- topic_unsubscribe_all: remove all subscriptions of a topic.
DELETE FROM mesh.topic_subscription WHERE mesh_id = $1 AND topic = $2;

-- topic_remove: delete a topic or queue.
DELETE FROM mesh.topic WHERE mesh_id = $1 AND name = $2;

-- topic_deletion_note: write that a topic was deleted.
INSERT INTO mesh.topic_deletion (mesh_id, name, deleted_at) VALUES ($1, $2, $3)
ON CONFLICT (mesh_id, name) DO UPDATE SET deleted_at = excluded.deleted_at;

-- topic_deletion_trim: delete the oldest of these notes, beyond a number.
DELETE FROM mesh.topic_deletion WHERE mesh_id = $1 AND name IN (
  SELECT name FROM mesh.topic_deletion WHERE mesh_id = $1 ORDER BY deleted_at DESC, name OFFSET $2);

-- topic_deletion_forget: delete the note, because the topic is created again.
DELETE FROM mesh.topic_deletion WHERE mesh_id = $1 AND name = $2;

-- topics_deleted: those names of an array whose topics were deleted.
SELECT name FROM mesh.topic_deletion WHERE mesh_id = $1 AND name = ANY ($2::text[]);

-- topic_subscribe: insert a subscription, once, if the topic exists.
WITH found AS (SELECT FROM mesh.topic WHERE mesh_id = $1 AND name = $2),
     made AS (INSERT INTO mesh.topic_subscription (mesh_id, topic, member_id, since)
              SELECT $1, $2, $3, $4 FROM found ON CONFLICT DO NOTHING)
SELECT count(*) FROM found;

-- topic_unsubscribe: remove a subscription.
DELETE FROM mesh.topic_subscription WHERE mesh_id = $1 AND topic = $2 AND member_id = $3;

-- topic_list: the topics of a mesh as one member sees them, with their active subscribers.
SELECT t.name, t.mode, t.created_at,
       EXISTS (SELECT FROM mesh.topic_subscription AS s
               WHERE s.mesh_id = t.mesh_id AND s.topic = t.name AND s.member_id = $2),
       CASE WHEN $5::boolean THEN
         (SELECT count(*) FROM mesh.topic_subscription AS s
          CROSS JOIN LATERAL (SELECT e.status FROM mesh.member AS e WHERE e.id = s.member_id LIMIT 1) AS m
          WHERE s.mesh_id = t.mesh_id AND s.topic = t.name AND m.status = 'active') END,
       t.key_epoch,
       CASE WHEN $5::boolean AND t.key_epoch > 0 THEN
         (SELECT count(*) FROM mesh.topic_subscription AS s
          CROSS JOIN LATERAL (SELECT * FROM mesh.member AS e WHERE e.id = s.member_id LIMIT 1) AS m
          WHERE s.mesh_id = t.mesh_id AND s.topic = t.name AND m.status = 'active'
            AND (SELECT w.key_epoch FROM mesh.topic_wrap AS w
                 WHERE w.mesh_id = t.mesh_id AND w.topic = t.name AND w.key_epoch = t.key_epoch
                   AND w.recipient_member_id = m.id AND w.recipient = m.ed25519_pubkey LIMIT 1) IS NULL) END
FROM mesh.topic AS t WHERE t.mesh_id = $1 AND t.name > $3 ORDER BY t.name LIMIT $4;

-- topic_mode: the mode of a topic, topic or queue.
SELECT mode FROM mesh.topic WHERE mesh_id = $1 AND name = $2;

-- dedupe_find: rows for a set of keys, each given by its three parts and looked up separately.
SELECT d.mesh_id, d.sender_member_id, d.client_message_id, d.broker_message_id, d.history_id,
       d.request_fingerprint, d.destination_kind, d.destination_ref, d.first_seen_at, d.history_available
FROM unnest($1::uuid[], $2::uuid[], $3::text[]) AS w (mesh_id, sender, client_id)
CROSS JOIN LATERAL (
  SELECT * FROM mesh.client_message_dedupe AS c
  WHERE c.mesh_id = w.mesh_id AND c.sender_member_id = w.sender AND c.client_message_id = w.client_id
  LIMIT 1) AS d;

-- accept: a batch of sends, each with its own outcome, in one transaction. A server that was started at another time than
-- the given one accepts nothing and returns no row.
SELECT a.send, a.outcome, a.error, a.broker_message_id, a.history_id, a.request_fingerprint, a.destination_kind,
       a.destination_ref, a.first_seen_at, a.history_available, a.delivery_ids, a.recipients
FROM (
  SELECT $1::timestamptz AS now_at
  WHERE $13::text IS NULL OR extract(epoch FROM pg_postmaster_start_time())::text = $13) AS s
CROSS JOIN LATERAL mesh.accept_v4(s.now_at, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) AS a;

-- accept_dm: one direct message, if nothing stands in its way; otherwise no row, and the accept function decides. It takes
-- half of the server's time that the function takes for a batch of one. The mesh, the sender and the recipient are read on
-- the snapshot of the statement, and nothing is written unless the claim wins.
WITH verdict AS MATERIALIZED (
  SELECT m.dedupe_retention_mode AS mode, m.dedupe_retention_days AS days, r.id AS recipient
  FROM (SELECT * FROM mesh.mesh AS e WHERE e.id = $2 LIMIT 1) AS m
  CROSS JOIN LATERAL (
    SELECT t.id FROM mesh.member_key AS k JOIN mesh.member AS t ON t.id = k.member_id
    WHERE k.mesh_id = $2 AND k.ed25519_pubkey = decode($8, 'hex') AND k.state <> 'revoked'
      AND t.status = 'active' LIMIT 1) AS r
  WHERE (SELECT s.mesh_id = $2 AND s.status = 'active' FROM mesh.member AS s WHERE s.id = $3)
    AND ($11::text IS NULL OR extract(epoch FROM pg_postmaster_start_time())::text = $11)
),
claim AS (
  INSERT INTO mesh.client_message_dedupe AS d (
    mesh_id, client_message_id, broker_message_id, history_id, request_fingerprint, destination_kind,
    destination_ref, sender_member_id, first_seen_at, expires_at)
  SELECT $2, $4, $5, nextval('mesh.message_history_history_id_seq'), $6, $7, $8, $3, $1::timestamptz,
         CASE v.mode WHEN 'permanent' THEN NULL ELSE $1 + v.days * interval '24 hours' END
  FROM verdict AS v
  ON CONFLICT (mesh_id, sender_member_id, client_message_id) DO NOTHING
  RETURNING d.history_id
),
body AS (
  INSERT INTO mesh.message_queue (
    id, mesh_id, client_message_id, destination_kind, destination_ref, sender_member_id, envelope, created_at)
  SELECT $5, $2, $4, $7, $8, $3, $10, $1 FROM claim
),
history AS (
  INSERT INTO mesh.message_history (
    history_id, broker_message_id, mesh_id, destination_kind, destination_ref, sender_member_id, created_at)
  SELECT c.history_id, $5, $2, $7, $8, $3, $1 FROM claim AS c
),
delivery AS (
  INSERT INTO mesh.delivery_queue AS q (broker_message_id, mesh_id, recipient_member_id, priority, enqueued_at)
  SELECT $5, $2, v.recipient, $9, $1 FROM claim CROSS JOIN verdict AS v
  RETURNING q.delivery_id, q.recipient_member_id
)
SELECT 1, 'accepted', NULL::text, $5, c.history_id, NULL::bytea, NULL::text, NULL::text, NULL::timestamptz,
       NULL::boolean, ARRAY[q.delivery_id], ARRAY[q.recipient_member_id]
FROM claim AS c CROSS JOIN delivery AS q;

-- deliveries_due: the deliveries owed to a member, most urgent first, then oldest, except some ids.
SELECT d.delivery_id, d.broker_message_id, h.history_id, h.sender_member_id, s.name, s.ed25519_pubkey,
       d.enqueued_at, d.priority,
       coalesce((SELECT q.envelope FROM mesh.message_queue AS q WHERE q.id = d.broker_message_id),
                (SELECT t.envelope FROM mesh.topic_message AS t WHERE t.id = d.broker_message_id))
FROM (SELECT delivery_id, broker_message_id, enqueued_at, priority FROM mesh.delivery_queue
      WHERE recipient_member_id = $2 AND mesh_id = $1 AND delivery_id <> ALL ($3::bigint[])
      ORDER BY priority, delivery_id LIMIT $4) AS d
CROSS JOIN LATERAL (
  SELECT * FROM mesh.message_history AS e WHERE e.broker_message_id = d.broker_message_id LIMIT 1) AS h
CROSS JOIN LATERAL (SELECT * FROM mesh.member AS m WHERE m.id = h.sender_member_id LIMIT 1) AS s
ORDER BY d.priority, d.delivery_id;

-- queue_subscriptions: the queues that a member takes from.
SELECT s.topic FROM mesh.topic_subscription AS s
WHERE s.member_id = $2 AND s.mesh_id = $1
  AND (SELECT t.mode FROM mesh.topic AS t WHERE t.mesh_id = s.mesh_id AND t.name = s.topic) = 'queue';

-- queues_waiting: those of some queues that have a message without a recipient.
SELECT q.name FROM unnest($2::text[]) AS q (name)
WHERE (SELECT d.delivery_id FROM mesh.delivery_queue AS d
       WHERE d.mesh_id = $1 AND d.queue = q.name AND d.recipient_member_id IS NULL LIMIT 1) IS NOT NULL;

-- queue_take: the oldest waiting messages of a queue, given in turn to those of these members that may have them: a
-- sealed message to a member with a wrap of its epoch.
WITH taker AS MATERIALIZED (
  SELECT u.member_id, u.place,
         ARRAY(SELECT DISTINCT w.key_epoch FROM mesh.topic_wrap AS w
               WHERE w.mesh_id = $1 AND w.topic = $2 AND w.recipient_member_id = u.member_id) AS key_epochs
  FROM unnest($3::uuid[]) WITH ORDINALITY AS u (member_id, place)
  WHERE (SELECT s.since FROM mesh.topic_subscription AS s
         WHERE s.mesh_id = $1 AND s.topic = $2 AND s.member_id = u.member_id) IS NOT NULL
    AND (SELECT m.status FROM mesh.member AS m WHERE m.id = u.member_id) = 'active'),
waiting AS MATERIALIZED (
  SELECT q.delivery_id, q.priority, b.key_epoch FROM mesh.delivery_queue AS q
  CROSS JOIN LATERAL (SELECT e.key_epoch FROM mesh.message_queue AS e WHERE e.id = q.broker_message_id OFFSET 0) AS b
  WHERE q.mesh_id = $1 AND q.queue = $2 AND q.recipient_member_id IS NULL
    AND EXISTS (SELECT FROM taker AS t WHERE b.key_epoch IS NULL OR b.key_epoch = ANY (t.key_epochs))
  ORDER BY q.priority, q.delivery_id LIMIT $4 FOR UPDATE OF q SKIP LOCKED),
given AS (
  UPDATE mesh.delivery_queue AS d SET recipient_member_id = t.member_id
  FROM (SELECT w.*, row_number() OVER (ORDER BY w.priority, w.delivery_id) - 1 AS place
        FROM waiting AS w) AS n
  CROSS JOIN LATERAL (
    SELECT (array_agg(k.member_id ORDER BY k.place))[1 + n.place % count(*)] AS member_id FROM taker AS k
    WHERE n.key_epoch IS NULL OR n.key_epoch = ANY (k.key_epochs)) AS t
  WHERE d.delivery_id = n.delivery_id
  RETURNING d.recipient_member_id, d.delivery_id, d.broker_message_id, d.enqueued_at, d.priority)
SELECT d.recipient_member_id, d.delivery_id, d.broker_message_id, h.history_id, h.sender_member_id, s.name,
       s.ed25519_pubkey, d.enqueued_at, d.priority,
       (SELECT b.envelope FROM mesh.message_queue AS b WHERE b.id = d.broker_message_id)
FROM given AS d
CROSS JOIN LATERAL (
  SELECT * FROM mesh.message_history AS e WHERE e.broker_message_id = d.broker_message_id LIMIT 1) AS h
CROSS JOIN LATERAL (SELECT * FROM mesh.member AS m WHERE m.id = h.sender_member_id LIMIT 1) AS s
ORDER BY d.priority, d.delivery_id;

-- queue_release: return the messages of a member to their queues, unless it has a lease of another connection.
WITH back AS (
  UPDATE mesh.delivery_queue AS d SET recipient_member_id = NULL
  WHERE d.recipient_member_id = $2 AND d.queue IS NOT NULL AND d.mesh_id = $1
    AND NOT EXISTS (SELECT 1 FROM (SELECT * FROM mesh.presence WHERE member_id = $2 OFFSET 0) AS p
                    WHERE p.lease_until > $4 AND p.connection_id <> $3)
  RETURNING d.queue)
SELECT DISTINCT queue FROM back;

-- queue_holders_lost: members that hold something of a queue and are connected nowhere.
WITH holder AS MATERIALIZED (
  SELECT DISTINCT d.mesh_id, d.recipient_member_id AS member_id FROM mesh.delivery_queue AS d
  WHERE d.queue IS NOT NULL AND d.recipient_member_id > '00000000-0000-0000-0000-000000000000')
SELECT h.mesh_id, h.member_id FROM holder AS h
WHERE NOT EXISTS (SELECT 1 FROM (SELECT * FROM mesh.presence AS l WHERE l.member_id = h.member_id OFFSET 0) AS p
                  WHERE p.lease_until > $1);

-- acknowledge: delete acknowledged deliveries, each of its own recipient only.
DELETE FROM mesh.delivery_queue
WHERE delivery_id = ANY ($1::bigint[])
  AND (delivery_id, recipient_member_id, mesh_id) IN (SELECT * FROM unnest($1::bigint[], $2::uuid[], $3::uuid[]));

-- deliveries_pending: the number of all deliveries.
SELECT count(*) FROM mesh.delivery_queue;

-- deliveries_owed: the number of deliveries owed to each of these members, each counted up to a limit.
SELECT w.id, (SELECT count(*) FROM (SELECT FROM mesh.delivery_queue WHERE recipient_member_id = w.id LIMIT $2) AS d)
FROM unnest($1::uuid[]) AS w (id);

-- presence_open: insert the leases of connections.
INSERT INTO mesh.presence (connection_id, member_id, mesh_id, broker_id, connected_at, lease_until, instance_id)
SELECT * FROM unnest($1::text[], $2::uuid[], $3::uuid[], $4::text[], $5::timestamptz[], $6::timestamptz[], $7::text[])
ON CONFLICT (connection_id) DO UPDATE SET lease_until = excluded.lease_until, broker_id = excluded.broker_id;

-- presence_renew: renew every lease of a broker.
UPDATE mesh.presence SET lease_until = $1 WHERE broker_id = $2;

-- presence_close: delete the leases of connections that have ended.
DELETE FROM mesh.presence WHERE connection_id = ANY ($1::text[]);

-- presence_clear: delete every lease of a broker.
DELETE FROM mesh.presence WHERE broker_id = $1;

-- presence_online: the members that hold a lease.
SELECT DISTINCT member_id FROM mesh.presence WHERE mesh_id = $1 AND lease_until > $2;

-- presence_leases: members that hold leases in some meshes, by broker, and whether they want to be seen.
SELECT p.mesh_id, p.broker_id, array_agg(p.member_id::text), array_agg(m.visible)
FROM unnest($1::uuid[]) AS w (mesh_id)
CROSS JOIN LATERAL (SELECT * FROM mesh.presence AS l WHERE l.mesh_id = w.mesh_id AND l.lease_until > $2 OFFSET 0) AS p
CROSS JOIN LATERAL (SELECT k.visible FROM mesh.member AS k WHERE k.id = p.member_id LIMIT 1) AS m
GROUP BY p.mesh_id, p.broker_id;

-- presence_lock: lock a member, so that two brokers admit it one after the other.
SELECT pg_advisory_xact_lock(hashtextextended('claudemesh member ' || $1::uuid::text, 0));

-- presence_elsewhere: a member's leases at other brokers.
SELECT connection_id, member_id, mesh_id, broker_id, connected_at, lease_until, instance_id
FROM (SELECT * FROM mesh.presence WHERE member_id = $2 OFFSET 0) AS p
WHERE mesh_id = $1 AND broker_id <> $3 AND lease_until > $4;

-- presence_missing: those of these connections that have no lease.
SELECT w.id FROM unnest($1::text[]) AS w (id)
WHERE (SELECT p.connection_id FROM mesh.presence AS p WHERE p.connection_id = w.id) IS NULL;

-- presence_expire: delete expired leases.
DELETE FROM mesh.presence WHERE ctid = ANY (ARRAY(
  SELECT ctid FROM mesh.presence WHERE lease_until <= $1 ORDER BY lease_until LIMIT 500 FOR UPDATE SKIP LOCKED));

-- presence_company: delete expired leases, and return whether another broker has a lease.
SELECT EXISTS (SELECT 1 FROM mesh.presence WHERE broker_id < $1)
    OR EXISTS (SELECT 1 FROM mesh.presence WHERE broker_id > $1);

-- signal: send a signal to every listening broker.
SELECT pg_notify($1, s.payload) FROM unnest($2::text[]) AS s (payload);

-- now: the database's time, in Unix milliseconds.
SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint;

-- delivery_newest: the newest delivery's id, 0 when there is none.
SELECT coalesce(max(delivery_id), 0) FROM mesh.delivery_queue;

-- deliveries_since: deliveries of these members behind an id, and the newest id of all.
WITH late AS MATERIALIZED (
  SELECT delivery_id, recipient_member_id FROM mesh.delivery_queue
  WHERE delivery_id > $1 ORDER BY delivery_id LIMIT 20000)
SELECT delivery_id, recipient_member_id FROM late WHERE recipient_member_id = ANY ($2::uuid[])
UNION ALL
SELECT max(delivery_id), NULL FROM late;

-- members_inactive: those of these members that are not active any more.
SELECT w.id FROM unnest($1::uuid[]) AS w (id)
WHERE (SELECT m.status FROM mesh.member AS m WHERE m.id = w.id) IS DISTINCT FROM 'active';

-- audit_write: append an audit event.
INSERT INTO mesh.audit_event (mesh_id, kind, member_id, data, created_at, lived_ms)
SELECT * FROM unnest($1::uuid[], $2::text[], $3::uuid[], $4::jsonb[], $5::timestamptz[], $6::bigint[]);

-- audit_list: audit events, the newest first.
SELECT mesh_id, kind, member_id, created_at, data FROM mesh.audit_event WHERE mesh_id = $1 ORDER BY id DESC LIMIT $2;

-- epoch: the identity of the data. A restore makes another cluster, database or table; a
-- failover begins another timeline.
SELECT md5(concat_ws('-', e.epoch, s.system_identifier, 'mesh.epoch'::regclass::oid::text,
                     (SELECT d.oid::text FROM pg_database AS d WHERE d.datname = current_database()),
                     substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)))
FROM mesh.epoch AS e, pg_control_system() AS s;

-- life: when the server was started, and the newest history id that was given out.
SELECT extract(epoch FROM pg_postmaster_start_time())::text, s.last_value FROM mesh.message_history_history_id_seq AS s;

-- epoch_alone: the same when the server does not tell its identity.
SELECT epoch FROM mesh.epoch;

-- inviter_lock: the member of a current key, locked so that a revocation and a join wait for one another.
SELECT m.status, m.role FROM mesh.member_key AS k JOIN mesh.member AS m ON m.id = k.member_id
WHERE k.mesh_id = $1 AND k.ed25519_pubkey = $2 AND k.state = 'current' FOR SHARE OF m;

-- earlier_inviter_lock: the same for a key that may be rotated out.
SELECT m.status, m.role FROM mesh.member_key AS k JOIN mesh.member AS m ON m.id = k.member_id
WHERE k.mesh_id = $1 AND k.ed25519_pubkey = $2 FOR SHARE OF m;

-- migration_lock: one migrating process at a time, until the end of its transaction.
SELECT pg_advisory_xact_lock($1);

-- migration_table_exists: whether the table of migrations exists.
SELECT to_regclass('mesh.schema_migration') IS NOT NULL;

-- relations: whether the schema holds any relation.
SELECT EXISTS (SELECT FROM pg_class WHERE relnamespace = to_regnamespace('mesh'));

-- schema_exists: whether the schema exists already.
SELECT to_regnamespace('mesh') IS NOT NULL;

-- schema_create: create the schema.
CREATE SCHEMA mesh;

-- migration_table: create the table of applied migrations.
CREATE TABLE mesh.schema_migration (version integer PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now());

-- migration_columns: the columns of the table of migrations.
SELECT array_agg(attname::text ORDER BY attnum) FROM pg_attribute
WHERE attrelid = 'mesh.schema_migration'::regclass AND attnum > 0 AND NOT attisdropped;

-- migration_list: the applied migrations.
SELECT version FROM mesh.schema_migration ORDER BY version;

-- migration_note: insert an applied migration.
INSERT INTO mesh.schema_migration (version) VALUES ($1);

-- server_state: version, encoding and durability settings of the server, and whether it is a standby.
SELECT current_setting('server_version_num')::integer AS version, pg_is_in_recovery() AS standby,
       current_setting('fsync') AS fsync, current_setting('full_page_writes') AS full_page_writes,
       current_setting('synchronous_commit') AS synchronous_commit, current_setting('server_encoding') AS encoding;

-- unlogged_tables: tables of ours that a crash would empty.
SELECT coalesce(string_agg(relname, ', ' ORDER BY relname), '') FROM pg_class
WHERE relnamespace = to_regnamespace('mesh') AND relkind = 'r' AND relpersistence <> 'p';

-- forbidden_tables: tables that this role may not read and write, and the sequence of history ids.
SELECT coalesce(string_agg(relname, ', ' ORDER BY relname), '') FROM pg_class
WHERE relnamespace = to_regnamespace('mesh') AND NOT CASE
  WHEN relname = 'schema_migration' THEN true
  WHEN relname = 'message_history_history_id_seq' THEN has_sequence_privilege(oid, 'USAGE')
                                                       AND has_sequence_privilege(oid, 'SELECT')
  WHEN relkind = 'r' THEN has_table_privilege(oid, 'SELECT') AND has_table_privilege(oid, 'INSERT')
                          AND has_table_privilege(oid, 'UPDATE') AND has_table_privilege(oid, 'DELETE')
  ELSE true END;

-- session_settings: settings of this session, by name.
SELECT set_config(s.name, s.value, false) FROM unnest($1::text[], $2::text[]) AS s (name, value);

-- session_durable: make commits of this session wait for the disk, unless a stronger setting is in force.
SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off';

-- session_process: the server process of this session.
SELECT pg_backend_pid();

-- transaction_patience: set time limits for this transaction.
SELECT set_config(s.name, $1, true)
FROM unnest('{statement_timeout,idle_in_transaction_session_timeout}'::text[]) AS s (name);

-- mark_hold: hold the mark of a broker's admin token until its session ends.
SELECT pg_advisory_lock_shared(1129137005, $1::int);

-- marks_differ: whether another session of this database holds another mark.
SELECT EXISTS (
  SELECT FROM pg_locks
  WHERE locktype = 'advisory' AND objsubid = 2 AND classid = 1129137005 AND objid <> $1::int::oid
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database()));

-- ping: whether the server answers.
SELECT 1;

-- mesh_update: change the policies of a mesh.
UPDATE mesh.mesh SET clone_concurrency_policy = $1, dedupe_retention_mode = $2, dedupe_retention_days = $3,
                     message_retention_days = $4, rate_limit_per_minute = $5, member_rate_limit_per_minute = $6,
                     member_bytes_per_minute = $7, stored_bytes = $8, member_stored_bytes = $9,
                     member_topics = $10, member_subscriptions = $11, member_invites = $12,
                     audit_retention_days = $13, audit_events = $14 WHERE id = $15;

-- job_lock: lock a job until the end of a batch, so that one broker runs it at a time.
SELECT pg_try_advisory_xact_lock(hashtext('claudemesh job ' || $1));

-- lived_clock: the position of the database's lived clock.
SELECT lived_ms, boot_id, boot_ms FROM mesh.lived_clock;

-- lived_clock_lock: lock the clock, so that brokers move it one after another.
SELECT pg_advisory_xact_lock(hashtext('claudemesh lived clock'));

-- lived_clock_note: write the position of the lived clock.
INSERT INTO mesh.lived_clock (one, lived_ms, boot_id, boot_ms) VALUES (1, $1, $2, $3)
ON CONFLICT (one) DO UPDATE SET lived_ms = excluded.lived_ms, boot_id = excluded.boot_id, boot_ms = excluded.boot_ms;

-- horizon_note: write the newest history id at this lived time, unless one was written less than $2 ms ago.
INSERT INTO mesh.history_horizon (lived_ms, history_id)
SELECT $1::bigint, h.newest
FROM (SELECT history_id AS newest FROM mesh.message_history ORDER BY history_id DESC LIMIT 1) AS h
WHERE h.newest > coalesce((SELECT o.history_id FROM mesh.history_horizon AS o ORDER BY o.lived_ms DESC LIMIT 1), 0)
  AND $1::bigint - $2::bigint >= coalesce(
    (SELECT o.lived_ms FROM mesh.history_horizon AS o ORDER BY o.lived_ms DESC LIMIT 1), $1::bigint - $2::bigint)
ON CONFLICT (lived_ms) DO NOTHING;

-- job_runs: the last run of each job.
SELECT job, lived_ms, finished_at, count, found FROM mesh.job_run;

-- job_note: write the last run of a job.
INSERT INTO mesh.job_run (job, lived_ms, finished_at, count, found) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (job) DO UPDATE SET lived_ms = excluded.lived_ms, finished_at = excluded.finished_at,
                                count = excluded.count, found = excluded.found;

-- retention: each mesh with the newest history id that is older than its retention in lived time, or 0.
SELECT m.id, coalesce((
  SELECT h.history_id FROM mesh.history_horizon AS h
  WHERE h.lived_ms <= $1::bigint - m.message_retention_days * 86400000::bigint
  ORDER BY h.lived_ms DESC LIMIT 1), 0)
FROM mesh.mesh AS m;

-- history_after: messages in the order of their acceptance.
SELECT history_id, broker_message_id, mesh_id FROM mesh.message_history
WHERE history_id > $1 ORDER BY history_id LIMIT $2;

-- still_owed: those of these messages with a delivery.
SELECT DISTINCT broker_message_id FROM mesh.delivery_queue WHERE broker_message_id = ANY ($1::uuid[]);

-- sweep_bodies: delete bodies, and mark their dedupe rows as swept.
WITH queued AS (
  DELETE FROM mesh.message_queue WHERE id = ANY ($1::uuid[])
  RETURNING mesh_id, sender_member_id, client_message_id
), posted AS (
  DELETE FROM mesh.topic_message WHERE id = ANY ($1::uuid[])
  RETURNING mesh_id, sender_member_id, client_message_id
), gone AS (SELECT * FROM queued UNION ALL SELECT * FROM posted)
UPDATE mesh.client_message_dedupe AS d SET history_available = false FROM gone
WHERE d.mesh_id = gone.mesh_id AND d.sender_member_id = gone.sender_member_id
  AND d.client_message_id = gone.client_message_id;

-- sweep_history: delete history rows, and leave a tombstone for each.
WITH gone AS (
  DELETE FROM mesh.message_history WHERE history_id = ANY ($1::bigint[]) RETURNING broker_message_id, mesh_id
)
INSERT INTO mesh.message_tombstone (broker_message_id, mesh_id, deleted_at, reason)
SELECT broker_message_id, mesh_id, $2, 'retention' FROM gone ON CONFLICT DO NOTHING;

-- forget_ids: the oldest swept ids of each mesh whose time was lived through, by the mesh's retention and by the
-- one that they were accepted under, with their tombstones.
WITH expired AS (
  SELECT d.mesh_id, d.sender_member_id, d.client_message_id
  FROM mesh.mesh AS m
  CROSS JOIN LATERAL (
    SELECT h.history_id FROM mesh.history_horizon AS h
    WHERE h.lived_ms <= $1::bigint - m.dedupe_retention_days * 86400000::bigint
    ORDER BY h.lived_ms DESC LIMIT 1) AS z
  CROSS JOIN LATERAL (
    SELECT * FROM mesh.client_message_dedupe AS c
    WHERE c.mesh_id = m.id AND c.history_id <= z.history_id AND NOT c.history_available
      AND c.expires_at IS NOT NULL
    ORDER BY c.mesh_id, c.history_id LIMIT $2) AS d
  WHERE m.dedupe_retention_mode = 'retention_scoped' AND d.history_id <= (
    SELECT h.history_id FROM mesh.history_horizon AS h
    WHERE h.lived_ms <= $1::bigint - (extract(epoch FROM d.expires_at - d.first_seen_at) * 1000)::bigint
    ORDER BY h.lived_ms DESC LIMIT 1)
  LIMIT $2
), forgotten AS (
  DELETE FROM mesh.client_message_dedupe AS d USING expired AS e
  WHERE d.mesh_id = e.mesh_id AND d.sender_member_id = e.sender_member_id
    AND d.client_message_id = e.client_message_id
  RETURNING d.broker_message_id
), buried AS (
  DELETE FROM mesh.message_tombstone WHERE broker_message_id IN (SELECT broker_message_id FROM forgotten)
)
SELECT count(*) FROM forgotten;

-- absent_ephemerals: ephemeral members without a lease.
SELECT m.mesh_id, m.id, m.last_seen_at FROM mesh.member AS m
WHERE m.ephemeral AND m.status = 'active' AND m.created_at > '-infinity'
  AND NOT EXISTS (SELECT 1 FROM (SELECT * FROM mesh.presence AS l WHERE l.member_id = m.id OFFSET 0) AS p
                  WHERE p.lease_until > $1)
ORDER BY m.created_at LIMIT $2;

-- end_ephemerals: make ephemeral members leave whose time is over, connected or not.
UPDATE mesh.member SET status = 'left' WHERE id = ANY (ARRAY(
  SELECT m.id FROM mesh.member AS m
  WHERE m.ephemeral AND m.status = 'active' AND m.created_at > '-infinity' AND m.ends_lived_ms <= $1
  ORDER BY m.created_at LIMIT $2))
AND status = 'active'
RETURNING mesh_id, id;

-- reap_ephemeral: make ephemeral members leave, unless they were seen since.
UPDATE mesh.member AS m SET status = 'left'
FROM unnest($1::uuid[], $2::uuid[], $3::timestamptz[]) AS w (mesh_id, id, last_seen_at)
WHERE m.id = w.id AND m.mesh_id = w.mesh_id AND m.status = 'active'
  AND m.last_seen_at IS NOT DISTINCT FROM w.last_seen_at
  AND NOT EXISTS (SELECT 1 FROM (SELECT * FROM mesh.presence AS l WHERE l.member_id = m.id OFFSET 0) AS p
                  WHERE p.lease_until > $4)
RETURNING m.mesh_id, m.id;

-- The checks look each row up (a scalar with LIMIT): an EXISTS may be answered by hashing the whole other table.

-- check_dedupe: ids in the order of their key, each with the rows that must exist with it.
SELECT d.mesh_id, d.sender_member_id, d.client_message_id, d.broker_message_id, d.history_available,
  (SELECT 1 FROM mesh.message_queue AS b WHERE b.id = d.broker_message_id LIMIT 1) IS NOT NULL
    OR (SELECT 1 FROM mesh.topic_message AS b WHERE b.id = d.broker_message_id LIMIT 1) IS NOT NULL,
  (SELECT 1 FROM mesh.message_history AS h WHERE h.broker_message_id = d.broker_message_id LIMIT 1) IS NOT NULL,
  (SELECT 1 FROM mesh.message_tombstone AS t WHERE t.broker_message_id = d.broker_message_id LIMIT 1) IS NOT NULL
FROM mesh.client_message_dedupe AS d
WHERE (d.mesh_id, d.sender_member_id, d.client_message_id) > ($1::uuid, $2::uuid, $3::text)
ORDER BY d.mesh_id, d.sender_member_id, d.client_message_id LIMIT $4;

-- check_queue_bodies: bodies without a dedupe row.
SELECT b.id, (SELECT 1 FROM mesh.client_message_dedupe AS d WHERE d.mesh_id = b.mesh_id
  AND d.sender_member_id = b.sender_member_id AND d.client_message_id = b.client_message_id
  AND d.broker_message_id = b.id LIMIT 1) IS NOT NULL, b.id
FROM mesh.message_queue AS b WHERE b.id > $1::uuid ORDER BY b.id LIMIT $2;

-- check_topic_bodies: the same for posts.
SELECT b.id, (SELECT 1 FROM mesh.client_message_dedupe AS d WHERE d.mesh_id = b.mesh_id
  AND d.sender_member_id = b.sender_member_id AND d.client_message_id = b.client_message_id
  AND d.broker_message_id = b.id LIMIT 1) IS NOT NULL, b.id
FROM mesh.topic_message AS b WHERE b.id > $1::uuid ORDER BY b.id LIMIT $2;

-- check_history: history and deliveries must have a body; a body has its id.
SELECT h.broker_message_id,
  (SELECT 1 FROM mesh.message_queue AS b WHERE b.id = h.broker_message_id LIMIT 1) IS NOT NULL
  OR (SELECT 1 FROM mesh.topic_message AS b WHERE b.id = h.broker_message_id LIMIT 1) IS NOT NULL, h.history_id
FROM mesh.message_history AS h WHERE h.history_id > $1::bigint ORDER BY h.history_id LIMIT $2;

-- check_deliveries: the same for deliveries.
SELECT q.broker_message_id,
  (SELECT 1 FROM mesh.message_queue AS b WHERE b.id = q.broker_message_id LIMIT 1) IS NOT NULL
  OR (SELECT 1 FROM mesh.topic_message AS b WHERE b.id = q.broker_message_id LIMIT 1) IS NOT NULL, q.delivery_id
FROM mesh.delivery_queue AS q WHERE q.delivery_id > $1::bigint ORDER BY q.delivery_id LIMIT $2;

-- directory_version: the newest version of a mesh's member list.
SELECT version, token FROM mesh.directory WHERE mesh_id = $1;

-- directory_token: the token of a version, if it is still kept.
SELECT token FROM mesh.directory_token WHERE mesh_id = $1 AND version = $2;

-- directory_changes: members changed after a version, in that order, without those that joined and left since.
SELECT * FROM mesh.member
WHERE mesh_id = $1 AND changed_version > $2 AND (status <> 'left' OR joined_version <= $3)
ORDER BY changed_version LIMIT $4;

-- directory_listed: members that have not left, in the order of their last change.
SELECT * FROM mesh.member WHERE mesh_id = $1 AND changed_version > $2 AND status <> 'left'
ORDER BY changed_version LIMIT $3;

-- members_by_name: members in the order of their names and ids.
SELECT * FROM mesh.member WHERE mesh_id = $1 AND (lower(name), id) > (lower($2), $3::uuid)
ORDER BY lower(name), id LIMIT $4;

-- member_named: the active member of a name, else the one that had it last.
SELECT * FROM mesh.member WHERE mesh_id = $1 AND lower(name) = lower($2)
ORDER BY status = 'active' DESC, changed_version DESC LIMIT 1;

-- member_of_id: the member of an id.
SELECT * FROM mesh.member WHERE mesh_id = $1 AND id = $2;

-- members_privileged: active owners and admins.
SELECT id FROM mesh.member
WHERE role IN ('owner', 'admin') AND role <> 'member' AND mesh_id = $1 AND status = 'active';

-- directory_versions: the newest versions of some meshes.
SELECT d.mesh_id, d.version, d.token FROM unnest($1::uuid[]) AS w (mesh_id)
CROSS JOIN LATERAL (SELECT * FROM mesh.directory AS e WHERE e.mesh_id = w.mesh_id LIMIT 1) AS d;

-- stored_lock: take the lock under which one broker at a time adds the changes up, if it is free.
SELECT pg_try_advisory_xact_lock(hashtext('claudemesh stored bytes'));

-- stored_add_up: add the changes of a mesh to its counts.
WITH gone AS (
  DELETE FROM mesh.stored_change WHERE mesh_id = $1 RETURNING mesh_id, member_id, kind, bytes
)
INSERT INTO mesh.stored_bytes AS s (mesh_id, member_id, kind, bytes)
SELECT mesh_id, member_id, kind, sum(bytes)::bigint FROM gone GROUP BY 1, 2, 3
ON CONFLICT (mesh_id, member_id, kind) DO UPDATE SET bytes = s.bytes + excluded.bytes;

-- stored: the bytes that each member of a mesh has stored.
SELECT member_id, sum(bytes)::bigint
FROM (SELECT member_id, bytes FROM mesh.stored_bytes WHERE mesh_id = $1
      UNION ALL SELECT member_id, bytes FROM mesh.stored_change WHERE mesh_id = $1) AS counted
GROUP BY member_id;

-- stored_recount: count the stored bytes from the bodies, in one snapshot, and correct by the difference.
WITH bodies AS (
  SELECT mesh_id, sender_member_id AS member_id, 'queue' AS kind, sum(octet_length(envelope))::bigint AS bytes
  FROM mesh.message_queue GROUP BY 1, 2
  UNION ALL
  SELECT mesh_id, sender_member_id, 'topic', sum(octet_length(envelope))::bigint
  FROM mesh.topic_message GROUP BY 1, 2
),
counted AS (
  SELECT mesh_id, member_id, kind, sum(bytes)::bigint AS bytes
  FROM (SELECT * FROM mesh.stored_bytes UNION ALL SELECT * FROM mesh.stored_change) AS every
  GROUP BY 1, 2, 3
),
drift AS (
  SELECT mesh_id, member_id, kind, coalesce(b.bytes, 0) - coalesce(c.bytes, 0) AS bytes
  FROM bodies AS b FULL JOIN counted AS c USING (mesh_id, member_id, kind)
)
INSERT INTO mesh.stored_change (mesh_id, member_id, kind, bytes)
SELECT mesh_id, member_id, kind, bytes FROM drift WHERE bytes <> 0;

-- topics_made: the number of topics and queues that a member has created.
SELECT count(*) FROM mesh.topic WHERE mesh_id = $1 AND created_by = $2;

-- subscriptions_held: the number of topics and queues to which a member is subscribed.
SELECT count(*) FROM mesh.topic_subscription WHERE mesh_id = $1 AND member_id = $2;

-- invites_open: the number of invites of a member that can still be used.
SELECT count(*) FROM mesh.invite
WHERE mesh_id = $1 AND created_by = $2 AND revoked_at IS NULL AND used_count < max_uses AND expires_at > $3;

-- audit_stamp: stamp events of a schema without lived time with the time of the upgrade.
UPDATE mesh.audit_event SET lived_ms = $1 WHERE id IN (SELECT id FROM mesh.audit_event WHERE lived_ms = 0 LIMIT $2);

-- audit_prune: delete the oldest events of a mesh, past their retention or beyond their number.
DELETE FROM mesh.audit_event
WHERE id IN (SELECT id FROM mesh.audit_event WHERE mesh_id = $1 ORDER BY id LIMIT $4)
  AND (lived_ms < $2 OR id <= (
    SELECT id FROM mesh.audit_event WHERE mesh_id = $1 ORDER BY id DESC LIMIT 1 OFFSET $3));

-- acting: some members, and the active owners of the mesh, locked in one order: of two owners that leave at once
-- the second finds that the first has left.
SELECT * FROM mesh.member WHERE mesh_id = $1 AND id = ANY (ARRAY(
  SELECT o.id FROM mesh.member AS o
  WHERE o.role = 'owner' AND o.role <> 'member' AND o.mesh_id = $1 AND o.status = 'active'
  UNION SELECT $2::uuid UNION SELECT $3::uuid))
ORDER BY id FOR UPDATE;

-- member_rename: change the name of an active member.
UPDATE mesh.member SET name = $1 WHERE mesh_id = $2 AND id = $3 AND status = 'active';

-- member_set_role: change the role of a member.
UPDATE mesh.member SET role = $1 WHERE mesh_id = $2 AND id = $3;

-- statement_keep: write a statement in the place of an older one of its kind.
INSERT INTO mesh.member_statement AS s (mesh_id, member_id, kind, subject, at_ms, body) VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (member_id, kind, subject) DO UPDATE SET at_ms = excluded.at_ms, body = excluded.body
WHERE excluded.at_ms > s.at_ms;

-- statements: the statements that the entries of some members carry.
SELECT s.member_id, s.body FROM unnest($1::uuid[]) AS w (id)
CROSS JOIN LATERAL (SELECT * FROM mesh.member_statement AS t WHERE t.member_id = w.id OFFSET 0) AS s
ORDER BY s.at_ms DESC, s.kind;

-- statement_at: the time of the latest statement of a kind about a member.
SELECT at_ms FROM mesh.member_statement WHERE member_id = $1 AND kind = $2 AND subject = $3;

-- departed: ephemeral members of a mesh that have left, in the order of their last change.
SELECT id, changed_version FROM mesh.member
WHERE mesh_id = $1 AND ephemeral AND status = 'left' AND changed_version > $2
ORDER BY changed_version LIMIT $3;

-- departed_unsubscribe: delete the subscriptions of some members.
DELETE FROM mesh.topic_subscription WHERE mesh_id = $1 AND member_id = ANY ($2::uuid[]);

-- departed_deliveries: delete what some members are owed. Messages of queues go back to their queues by themselves.
DELETE FROM mesh.delivery_queue WHERE delivery_id = ANY (ARRAY(
  SELECT d.delivery_id FROM unnest($2::uuid[]) AS w (id)
  CROSS JOIN LATERAL (SELECT * FROM mesh.delivery_queue AS q
                      WHERE q.recipient_member_id = w.id AND q.mesh_id = $1 AND q.queue IS NULL
                      ORDER BY q.priority, q.delivery_id LIMIT $3) AS d
  LIMIT $3))
RETURNING delivery_id;

-- departed_done: those of some members that are owed nothing, and of which no message is stored.
SELECT w.id FROM unnest($2::uuid[]) AS w (id)
WHERE (SELECT 1 FROM mesh.client_message_dedupe AS d
       WHERE d.mesh_id = $1 AND d.sender_member_id = w.id AND d.history_available LIMIT 1) IS NULL
  AND (SELECT 1 FROM mesh.delivery_queue AS q WHERE q.recipient_member_id = w.id LIMIT 1) IS NULL
  AND (SELECT 1 FROM mesh.presence AS p WHERE p.member_id = w.id LIMIT 1) IS NULL;

-- departed_stored: delete the counts of stored bytes of some members.
DELETE FROM mesh.stored_bytes WHERE mesh_id = $1 AND member_id = ANY ($2::uuid[]);

-- departed_forget: delete members that have left, with their keys.
DELETE FROM mesh.member WHERE mesh_id = $1 AND id = ANY ($2::uuid[]) AND status = 'left';

-- departed_tokens: delete the tokens of the versions before the last change of a deleted member.
DELETE FROM mesh.directory_token WHERE mesh_id = $1 AND version < $2;

-- statement_inherit: carry the replacements on by which the member with this id had replaced others.
INSERT INTO mesh.member_statement (mesh_id, member_id, kind, subject, at_ms, body)
SELECT mesh_id, $1::uuid, kind, subject, at_ms, body FROM mesh.member_statement
WHERE member_id = $2::uuid AND kind = 'replacement'
ON CONFLICT DO NOTHING;

-- topic_key_state: mode and present epoch of a topic, whether the next epoch is wanted, and the floor.
SELECT mode, key_epoch, rekey_wanted AND key_epoch > 0, key_floor FROM mesh.topic WHERE mesh_id = $1 AND name = $2;

-- topic_key_lock: the present epoch of a topic, locked: of two makers the second finds what the first has made.
SELECT key_epoch FROM mesh.topic WHERE mesh_id = $1 AND name = $2 FOR UPDATE;

-- topic_epochs: some epochs of a topic, oldest first.
SELECT key_epoch, commitment, previous_commitment, created_by, signature, created_at FROM mesh.topic_epoch
WHERE mesh_id = $1 AND topic = $2 AND key_epoch = ANY ($3::integer[]) ORDER BY key_epoch;

-- topic_wraps: the wraps of a member of some epochs, those for its present key first.
SELECT w.key_epoch, w.recipient, w.wrapped_by, w.nonce, w.ciphertext, w.signature
FROM mesh.topic_wrap AS w
WHERE w.mesh_id = $1 AND w.topic = $2 AND w.key_epoch = ANY ($4::integer[]) AND w.recipient_member_id = $3
ORDER BY w.key_epoch DESC,
         w.recipient = (SELECT m.ed25519_pubkey FROM mesh.member AS m WHERE m.id = w.recipient_member_id) DESC,
         w.wrapped_by;

-- topic_key_missing: active subscribers without a wrap of the current epoch for their present key; all of them when
-- the next epoch is wanted.
SELECT m.* FROM mesh.topic AS t
CROSS JOIN LATERAL (SELECT u.member_id FROM mesh.topic_subscription AS u
                    WHERE u.mesh_id = t.mesh_id AND u.topic = t.name OFFSET 0) AS s
CROSS JOIN LATERAL (SELECT * FROM mesh.member AS e WHERE e.id = s.member_id LIMIT 1) AS m
WHERE t.mesh_id = $1 AND t.name = $2 AND m.status = 'active'
  AND (t.rekey_wanted OR (SELECT w.key_epoch FROM mesh.topic_wrap AS w
       WHERE w.mesh_id = t.mesh_id AND w.topic = t.name AND w.key_epoch = t.key_epoch
         AND w.recipient_member_id = m.id AND w.recipient = m.ed25519_pubkey LIMIT 1) IS NULL)
ORDER BY s.member_id LIMIT $3;

-- member_hold: whether a member is active; it stays so until the end of the transaction.
SELECT status = 'active' FROM mesh.member WHERE mesh_id = $1 AND id = $2 FOR SHARE;

-- topic_wrap_recipients_hold: members with some keys, locked in one order: one that is revoked waits, and then marks
-- the topics of which it has a wrap.
SELECT m.id FROM mesh.member AS m
WHERE m.id = ANY (ARRAY(SELECT k.member_id FROM mesh.member_key AS k
                        WHERE k.mesh_id = $1 AND k.ed25519_pubkey = ANY ($2::bytea[]) AND k.state = 'current'))
ORDER BY m.id FOR SHARE;

-- topic_epoch_commitment: the commitment of an epoch.
SELECT commitment FROM mesh.topic_epoch WHERE mesh_id = $1 AND topic = $2 AND key_epoch = $3;

-- topic_epochs_made: the number of epochs that a member has made since a lived time.
SELECT count(*) FROM mesh.topic_epoch WHERE mesh_id = $1 AND made_by = $2 AND made_lived_ms > $3;

-- topic_epoch_insert: insert an epoch.
INSERT INTO mesh.topic_epoch (mesh_id, topic, key_epoch, commitment, previous_commitment, created_by, signature,
  created_at, made_by, made_lived_ms)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10);

-- topic_epoch_current: make an epoch the present one of its topic.
UPDATE mesh.topic SET key_epoch = $3, key_lived_ms = $4, rekey_wanted = false,
  key_floor = CASE WHEN $3 > key_epoch + 1 THEN $3 - 1 ELSE key_floor END
WHERE mesh_id = $1 AND name = $2;

-- topic_wraps_put: write wraps for the present keys of active members, which have to be subscribers or the member $10
-- where one is given, unless other wrappers have written enough.
INSERT INTO mesh.topic_wrap AS o (mesh_id, topic, key_epoch, recipient_member_id, recipient, wrapped_by, nonce,
  ciphertext, signature)
SELECT $1, $2, e.key_epoch, m.id, e.recipient, e.wrapped_by, e.nonce, e.ciphertext, e.signature
FROM unnest($3::integer[], $4::bytea[], $5::bytea[], $6::bytea[], $7::bytea[], $8::bytea[])
       AS e (key_epoch, recipient, wrapped_by, nonce, ciphertext, signature)
CROSS JOIN LATERAL (SELECT c.member_id FROM mesh.member_key AS c
                    WHERE c.mesh_id = $1 AND c.ed25519_pubkey = e.recipient AND c.state = 'current' LIMIT 1) AS k
CROSS JOIN LATERAL (SELECT * FROM mesh.member AS n WHERE n.id = k.member_id LIMIT 1) AS m
WHERE m.status = 'active'
  AND ($10::uuid IS NULL OR m.id = $10 OR (
    SELECT s.since FROM mesh.topic_subscription AS s
    WHERE s.mesh_id = $1 AND s.topic = $2 AND s.member_id = m.id) IS NOT NULL)
  AND (SELECT count(*) FROM mesh.topic_wrap AS w
       WHERE w.mesh_id = $1 AND w.topic = $2 AND w.key_epoch = e.key_epoch AND w.recipient_member_id = m.id
         AND w.recipient = e.recipient AND w.wrapped_by <> e.wrapped_by) < $9
ON CONFLICT (mesh_id, topic, key_epoch, recipient_member_id, recipient, wrapped_by) DO UPDATE
SET nonce = excluded.nonce, ciphertext = excluded.ciphertext, signature = excluded.signature
WHERE o.nonce <> excluded.nonce
RETURNING o.recipient_member_id;

-- topic_key_want: mark that the next epoch of a topic is wanted.
UPDATE mesh.topic SET rekey_wanted = true WHERE mesh_id = $1 AND name = $2 RETURNING key_epoch > 0;

-- topic_keys_wanted: topics whose next epoch is wanted.
SELECT name FROM mesh.topic WHERE mesh_id = $1 AND rekey_wanted AND key_epoch > 0 ORDER BY name LIMIT $2;

-- topic_keys_wanted_of: topics of a member whose next epoch is wanted.
SELECT t.name FROM (SELECT s.topic FROM mesh.topic_subscription AS s WHERE s.member_id = $2
                    UNION SELECT w.topic FROM mesh.topic_wrap AS w WHERE w.recipient_member_id = $2) AS o
JOIN mesh.topic AS t ON t.mesh_id = $1 AND t.name = o.topic
WHERE t.rekey_wanted AND t.key_epoch > 0 ORDER BY t.name LIMIT $3;

-- topic_holders: those of some members that are active and have a wrap of a topic; $4: and subscribe to it.
SELECT m.id FROM unnest($3::uuid[]) AS e (id)
CROSS JOIN LATERAL (SELECT * FROM mesh.member AS n
                    WHERE n.id = e.id AND n.mesh_id = $1 AND n.status = 'active' LIMIT 1) AS m
WHERE (SELECT w.key_epoch FROM mesh.topic_wrap AS w WHERE w.recipient_member_id = m.id AND w.topic = $2
       LIMIT 1) IS NOT NULL
  AND (NOT $4::boolean OR (
    SELECT s.since FROM mesh.topic_subscription AS s
    WHERE s.mesh_id = $1 AND s.topic = $2 AND s.member_id = m.id) IS NOT NULL);

-- topic_key_audience: those of some members that are active, and subscribe to a topic or have a wrap of it.
SELECT m.id FROM unnest($3::uuid[]) AS e (id)
CROSS JOIN LATERAL (SELECT * FROM mesh.member AS n
                    WHERE n.id = e.id AND n.mesh_id = $1 AND n.status = 'active' LIMIT 1) AS m
WHERE (SELECT s.since FROM mesh.topic_subscription AS s
       WHERE s.mesh_id = $1 AND s.topic = $2 AND s.member_id = m.id) IS NOT NULL
   OR (SELECT w.key_epoch FROM mesh.topic_wrap AS w WHERE w.recipient_member_id = m.id AND w.topic = $2
       LIMIT 1) IS NOT NULL;

-- queue_epochs_waiting: the epochs of the messages of a queue without a recipient.
SELECT DISTINCT q.key_epoch FROM mesh.delivery_queue AS d JOIN mesh.message_queue AS q ON q.id = d.broker_message_id
WHERE d.mesh_id = $1 AND d.queue = $2 AND d.recipient_member_id IS NULL AND q.key_epoch IS NOT NULL;

-- topic_key_owed: whether a message under an epoch was accepted since a member subscribed, or waits in a queue.
SELECT EXISTS (SELECT FROM mesh.topic_message AS b
               WHERE b.mesh_id = $1 AND b.topic = $2 AND b.key_epoch = $4 AND b.created_at >= s.since)
    OR EXISTS (SELECT FROM mesh.message_queue AS b JOIN mesh.delivery_queue AS d ON d.broker_message_id = b.id
               WHERE b.mesh_id = $1 AND b.destination_ref = $2 AND b.key_epoch = $4)
FROM mesh.topic_subscription AS s WHERE s.mesh_id = $1 AND s.topic = $2 AND s.member_id = $3;

-- topic_keys_old: mark that the next epoch is wanted of topics whose epoch was made before a lived time.
UPDATE mesh.topic SET rekey_wanted = true WHERE (mesh_id, name) IN (
  SELECT mesh_id, name FROM mesh.topic WHERE key_epoch > 0 AND NOT rekey_wanted AND key_lived_ms < $1
  ORDER BY mesh_id, name LIMIT $2 FOR UPDATE SKIP LOCKED);

-- topic_epochs_past: epochs that are not accepted any more and have a part that no message needs, with whether a
-- message under them is stored. The newest epoch of a deleted topic stays as long as the deletion is known.
SELECT mesh_id, topic, key_epoch, is_stored FROM (
  SELECT e.mesh_id, e.topic, e.key_epoch, e.made_lived_ms,
         EXISTS (SELECT FROM mesh.topic_wrap AS w
                 WHERE w.mesh_id = e.mesh_id AND w.topic = e.topic AND w.key_epoch = e.key_epoch) AS has_wraps,
         EXISTS (SELECT FROM mesh.topic_message AS b JOIN mesh.delivery_queue AS d ON d.broker_message_id = b.id
                 WHERE b.mesh_id = e.mesh_id AND b.topic = e.topic AND b.key_epoch = e.key_epoch)
      OR EXISTS (SELECT FROM mesh.message_queue AS b JOIN mesh.delivery_queue AS d ON d.broker_message_id = b.id
                 WHERE b.mesh_id = e.mesh_id AND b.destination_ref = e.topic AND b.key_epoch = e.key_epoch) AS is_owed,
         EXISTS (SELECT FROM mesh.topic_message AS b
                 WHERE b.mesh_id = e.mesh_id AND b.topic = e.topic AND b.key_epoch = e.key_epoch)
      OR EXISTS (SELECT FROM mesh.message_queue AS b
                 WHERE b.mesh_id = e.mesh_id AND b.destination_ref = e.topic AND b.key_epoch = e.key_epoch)
      OR t.name IS NULL
        AND EXISTS (SELECT FROM mesh.topic_deletion AS g WHERE g.mesh_id = e.mesh_id AND g.name = e.topic)
        AND NOT EXISTS (SELECT FROM mesh.topic_epoch AS n
                        WHERE n.mesh_id = e.mesh_id AND n.topic = e.topic AND n.key_epoch > e.key_epoch) AS is_stored
  FROM mesh.topic_epoch AS e LEFT JOIN mesh.topic AS t ON t.mesh_id = e.mesh_id AND t.name = e.topic
  WHERE e.made_lived_ms < $2 AND (t.name IS NULL OR e.key_epoch <= t.key_epoch - $1)) AS past
WHERE NOT is_stored OR has_wraps AND NOT is_owed
ORDER BY made_lived_ms LIMIT $3;

-- topic_wraps_delete: delete the wraps of an epoch.
DELETE FROM mesh.topic_wrap WHERE mesh_id = $1 AND topic = $2 AND key_epoch = $3;

-- topic_epoch_delete: delete an epoch.
DELETE FROM mesh.topic_epoch WHERE mesh_id = $1 AND topic = $2 AND key_epoch = $3;

-- history_keys: the keys that a member has or had.
SELECT encode(ed25519_pubkey, 'hex') FROM mesh.member_key WHERE mesh_id = $1 AND member_id = $2;

-- history_refs_sent: the keys that a member has sent dms to, one look-up for each.
WITH RECURSIVE refs (ref) AS (
  (SELECT h.destination_ref FROM mesh.message_history AS h
   WHERE h.mesh_id = $1 AND h.sender_member_id = $2 AND h.destination_kind = 'dm'
   ORDER BY h.destination_ref LIMIT 1)
  UNION ALL
  SELECT n.ref FROM refs CROSS JOIN LATERAL (
    SELECT h.destination_ref AS ref FROM mesh.message_history AS h
    WHERE h.mesh_id = $1 AND h.sender_member_id = $2 AND h.destination_kind = 'dm' AND h.destination_ref > refs.ref
    ORDER BY h.destination_ref LIMIT 1) AS n)
SELECT ref FROM refs;

-- history_refs_taken: the queues that a member has taken messages from, one look-up for each.
WITH RECURSIVE refs (ref) AS (
  (SELECT h.destination_ref FROM mesh.message_history AS h
   WHERE h.mesh_id = $1 AND h.taken_by = $2 ORDER BY h.destination_ref LIMIT 1)
  UNION ALL
  SELECT n.ref FROM refs CROSS JOIN LATERAL (
    SELECT h.destination_ref AS ref FROM mesh.message_history AS h
    WHERE h.mesh_id = $1 AND h.taken_by = $2 AND h.destination_ref > refs.ref
    ORDER BY h.destination_ref LIMIT 1) AS n)
SELECT ref FROM refs;

-- history_periods: the periods of a member's subscriptions, of one topic or of all.
SELECT topic, after_history, until_history FROM mesh.topic_period
WHERE member_id = $2 AND mesh_id = $1 AND ($3::text IS NULL OR topic = $3);

-- history_ids: the first ids of these sources. Each has one id at least, so those with the nearest fill the page.
WITH source AS (
  SELECT * FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::bigint[])
    WITH ORDINALITY AS u (family, kind, ref, member_id, low, high, number)
), near AS MATERIALIZED (
  SELECT s.* FROM source AS s CROSS JOIN LATERAL mesh.history_of(
    $1, s.family, s.kind, s.ref, nullif(s.member_id, '')::uuid, s.low, s.high, $9, 1) AS f (history_id)
  ORDER BY f.history_id ASC LIMIT $8
)
SELECT DISTINCT f.history_id FROM near AS s CROSS JOIN LATERAL mesh.history_of(
  $1, s.family, s.kind, s.ref, nullif(s.member_id, '')::uuid, s.low, s.high, $9, $8) AS f (history_id)
ORDER BY f.history_id ASC LIMIT $8;

-- history_rows: the messages of these history ids, as deliveries.
SELECT 0, h.broker_message_id, h.history_id, h.sender_member_id, s.name, s.ed25519_pubkey, h.created_at, 1,
       coalesce((SELECT q.envelope FROM mesh.message_queue AS q WHERE q.id = h.broker_message_id),
                (SELECT t.envelope FROM mesh.topic_message AS t WHERE t.id = h.broker_message_id))
FROM mesh.message_history AS h
CROSS JOIN LATERAL (SELECT * FROM mesh.member AS m WHERE m.id = h.sender_member_id LIMIT 1) AS s
WHERE h.history_id = ANY ($1::bigint[]);

-- history_pruned: the history id that messages of a mesh are deleted below.
SELECT before FROM mesh.history_pruned WHERE mesh_id = $1;

-- history_prune: write that messages up to these history ids were deleted.
INSERT INTO mesh.history_pruned AS known (mesh_id, before)
SELECT u.mesh_id, max(u.history_id) + 1 FROM unnest($1::uuid[], $2::bigint[]) AS u (mesh_id, history_id)
GROUP BY u.mesh_id
ON CONFLICT (mesh_id) DO UPDATE SET before = greatest(known.before, excluded.before);

-- sweep_periods: delete periods of subscriptions whose posts are all deleted.
DELETE FROM mesh.topic_period WHERE until_history < (SELECT min(history_id) FROM mesh.message_history);

-- history_reach: let the open period of a subscription begin with the first post since an id.
UPDATE mesh.topic_period AS p SET after_history = least(p.after_history, h.history_id - 1)
FROM mesh.message_history AS h
WHERE p.member_id = $3 AND p.mesh_id = $1 AND p.topic = $2 AND p.until_history IS NULL AND h.broker_message_id = (
  SELECT t.id FROM mesh.topic_message AS t WHERE t.mesh_id = $1 AND t.topic = $2 AND t.id >= $4
  ORDER BY t.id LIMIT 1);
