-- accept_v4: the phases `check` and `write` for a batch, in one round trip and one transaction
-- (docs/spec/broker.md, Accepting a send).
--
-- The arrays hold one element for each send, and their keys differ from one another. `key_epochs` are those that bodies
-- are sealed under. Of a topic the last `key_window` epochs are accepted, if they are above its `key_floor`. One row is
-- returned for each send:
--   'accepted'   with its history id and deliveries,
--   'existing'   with the row that holds its key,
--   'refused'    with the error; nothing of it was written.
--
-- There are three statements, because under READ COMMITTED each has a snapshot of its own:
-- 1. The claim inserts the dedupe rows. It waits for a transaction that holds the same key. Keys are claimed in
--    their order, so that two batches cannot wait for one another.
-- 2. The second reads the rows of keys that were taken before. A row that was there during the claim and was
--    swept since is missing: the caller repeats the whole batch (40001).
-- 3. The third does the rest on one snapshot after the claim: it decides which sends are refused and frees their
--    keys, and writes body, history and deliveries of the others.
--
-- A function that has been released is never changed. A change is a new version in a file of its own, with a
-- migration that creates it, so that brokers of the release before go on with theirs.
CREATE FUNCTION mesh.accept_v4(
  now_at timestamptz,
  mesh_ids uuid[],
  senders uuid[],
  client_ids text[],
  message_ids uuid[],
  fingerprints bytea[],
  kinds text[],
  refs text[],
  priorities smallint[],
  envelopes bytea[],
  key_epochs integer[],
  key_window integer
) RETURNS TABLE (
  send integer,
  outcome text,
  error text,
  broker_message_id uuid,
  history_id bigint,
  request_fingerprint bytea,
  destination_kind text,
  destination_ref text,
  first_seen_at timestamptz,
  history_available boolean,
  delivery_ids bigint[],
  recipients uuid[]
) LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
  total CONSTANT integer := cardinality(client_ids);
  -- In the order of the sends, whatever order the keys are claimed in.
  numbers CONSTANT bigint[] := ARRAY(
    SELECT nextval('mesh.message_history_history_id_seq') FROM generate_series(1, total));
  claimed bigint[];
  known integer;
  homeless integer;
BEGIN
  WITH claim AS (
    INSERT INTO mesh.client_message_dedupe AS d (
      mesh_id, client_message_id, broker_message_id, history_id, request_fingerprint, destination_kind,
      destination_ref, sender_member_id, first_seen_at, expires_at)
    SELECT w.mesh_id, w.client_id, w.message_id, w.number, w.fingerprint, w.kind, w.ref, w.sender, now_at,
           CASE m.dedupe_retention_mode WHEN 'permanent' THEN NULL
                ELSE now_at + m.dedupe_retention_days * interval '24 hours' END
    FROM unnest(mesh_ids, senders, client_ids, message_ids, numbers, fingerprints, kinds, refs)
           AS w (mesh_id, sender, client_id, message_id, number, fingerprint, kind, ref)
    CROSS JOIN LATERAL (SELECT * FROM mesh.mesh AS e WHERE e.id = w.mesh_id LIMIT 1) AS m
    ORDER BY w.mesh_id, w.sender, w.client_id COLLATE "C"
    ON CONFLICT (mesh_id, sender_member_id, client_message_id) DO NOTHING
    RETURNING d.history_id
  )
  SELECT coalesce(array_agg(c.history_id), '{}') INTO claimed FROM claim AS c;

  IF cardinality(claimed) < total THEN
    RETURN QUERY
    SELECT w.send::integer, 'existing', NULL::text, d.broker_message_id, d.history_id, d.request_fingerprint,
           d.destination_kind, d.destination_ref, d.first_seen_at, d.history_available,
           NULL::bigint[], NULL::uuid[]
    FROM (SELECT * FROM unnest(mesh_ids, senders, client_ids, numbers)
                          WITH ORDINALITY AS u (mesh_id, sender, client_id, number, send)
          WHERE u.number <> ALL (claimed)
          ORDER BY u.mesh_id, u.sender, u.client_id COLLATE "C") AS w
    CROSS JOIN LATERAL (
      SELECT * FROM mesh.client_message_dedupe AS c
      WHERE c.mesh_id = w.mesh_id AND c.sender_member_id = w.sender AND c.client_message_id = w.client_id
      LIMIT 1 FOR SHARE) AS d;
    GET DIAGNOSTICS known = ROW_COUNT;

    -- Without its mesh a send has no key to claim and no sender who could be a member.
    RETURN QUERY
    SELECT w.send::integer, 'refused', 'not_a_member', NULL::uuid, NULL::bigint, NULL::bytea, NULL::text,
           NULL::text, NULL::timestamptz, NULL::boolean, NULL::bigint[], NULL::uuid[]
    FROM unnest(mesh_ids) WITH ORDINALITY AS w (mesh_id, send)
    WHERE (SELECT m.id FROM mesh.mesh AS m WHERE m.id = w.mesh_id) IS NULL;
    GET DIAGNOSTICS homeless = ROW_COUNT;

    IF cardinality(claimed) + known + homeless < total THEN
      RAISE EXCEPTION 'a row that won was swept away' USING ERRCODE = 'serialization_failure';
    END IF;
  END IF;

  IF cardinality(claimed) = 0 THEN
    RETURN;
  END IF;

  RETURN QUERY
  WITH found AS MATERIALIZED (
    SELECT w.*,
           -- By the id alone: with the mesh as a second condition another index could seem as good.
           (SELECT s.mesh_id = w.mesh_id AND s.status = 'active' FROM mesh.member AS s
            WHERE s.id = w.sender) AS active_sender,
           CASE w.kind WHEN 'dm' THEN (
             SELECT r.id FROM mesh.member_key AS k JOIN mesh.member AS r ON r.id = k.member_id
             WHERE k.mesh_id = w.mesh_id AND k.ed25519_pubkey = decode(w.ref, 'hex')
               AND k.state <> 'revoked' AND r.status = 'active') END AS dm_recipient,
           CASE w.kind WHEN 'topic' THEN (
             SELECT t.name FROM mesh.topic AS t
             WHERE t.mesh_id = w.mesh_id AND t.name = w.ref AND t.mode = 'topic') END AS topic,
           CASE w.kind WHEN 'queue' THEN (
             SELECT t.name FROM mesh.topic AS t
             WHERE t.mesh_id = w.mesh_id AND t.name = w.ref AND t.mode = 'queue') END AS queue,
           CASE WHEN w.key_epoch IS NOT NULL THEN (
             -- The present epoch, and the newest one that is not accepted any more.
             SELECT ARRAY[t.key_epoch, greatest(t.key_epoch - key_window, t.key_floor)] FROM mesh.topic AS t
             WHERE t.mesh_id = w.mesh_id AND t.name = w.ref) END AS bounds
    FROM unnest(mesh_ids, senders, client_ids, message_ids, numbers, kinds, refs, priorities, envelopes, key_epochs)
           WITH ORDINALITY AS w (mesh_id, sender, client_id, message_id, number, kind, ref, priority,
                                 envelope, key_epoch, send)
    WHERE w.number = ANY (claimed)
  ),
  verdict AS MATERIALIZED (
    SELECT f.*,
           CASE WHEN f.active_sender IS NOT TRUE THEN 'not_a_member'
                WHEN f.dm_recipient IS NULL AND f.topic IS NULL AND f.queue IS NULL
                THEN 'destination_not_found'
                WHEN f.key_epoch > f.bounds[1] THEN 'key_epoch_unknown'
                WHEN f.key_epoch <= f.bounds[2] THEN 'key_epoch_expired' END AS refusal
    FROM found AS f
  ),
  freed AS (
    DELETE FROM mesh.client_message_dedupe AS d
    WHERE d.ctid = ANY (ARRAY(
      SELECT (SELECT c.ctid FROM mesh.client_message_dedupe AS c
              WHERE c.mesh_id = v.mesh_id AND c.sender_member_id = v.sender AND c.client_message_id = v.client_id)
      FROM verdict AS v WHERE v.refusal IS NOT NULL))
  ),
  queue_body AS (
    INSERT INTO mesh.message_queue (
      id, mesh_id, client_message_id, destination_kind, destination_ref, sender_member_id, envelope, created_at,
      key_epoch)
    SELECT v.message_id, v.mesh_id, v.client_id, v.kind, v.ref, v.sender, v.envelope, now_at, v.key_epoch
    FROM verdict AS v WHERE v.refusal IS NULL AND v.kind <> 'topic'
  ),
  topic_body AS (
    INSERT INTO mesh.topic_message (
      id, mesh_id, client_message_id, topic, sender_member_id, envelope, created_at, key_epoch)
    SELECT v.message_id, v.mesh_id, v.client_id, v.ref, v.sender, v.envelope, now_at, v.key_epoch
    FROM verdict AS v WHERE v.refusal IS NULL AND v.kind = 'topic'
  ),
  history AS (
    INSERT INTO mesh.message_history (
      history_id, broker_message_id, mesh_id, destination_kind, destination_ref, sender_member_id, created_at)
    SELECT v.number, v.message_id, v.mesh_id, v.kind, v.ref, v.sender, now_at
    FROM verdict AS v WHERE v.refusal IS NULL
  ),
  audience AS (
    SELECT p.mesh_id, p.topic, s.member_id
    FROM (SELECT DISTINCT v.mesh_id, v.topic FROM verdict AS v
          WHERE v.refusal IS NULL AND v.topic IS NOT NULL) AS p
    CROSS JOIN LATERAL (
      SELECT u.member_id FROM mesh.topic_subscription AS u
      WHERE u.mesh_id = p.mesh_id AND u.topic = p.topic OFFSET 0) AS s
    WHERE (SELECT m.status FROM mesh.member AS m WHERE m.id = s.member_id) = 'active'
  ),
  recipient AS (
    SELECT v.send, v.message_id, v.mesh_id, v.priority, v.dm_recipient AS member_id, NULL::text AS queue
    FROM verdict AS v WHERE v.refusal IS NULL AND v.dm_recipient IS NOT NULL
    UNION ALL
    SELECT v.send, v.message_id, v.mesh_id, v.priority, NULL::uuid, v.queue
    FROM verdict AS v WHERE v.refusal IS NULL AND v.queue IS NOT NULL
    UNION ALL
    SELECT v.send, v.message_id, v.mesh_id, v.priority, a.member_id, NULL::text
    FROM verdict AS v JOIN audience AS a ON a.mesh_id = v.mesh_id AND a.topic = v.topic
    WHERE v.refusal IS NULL AND a.member_id <> v.sender
  ),
  delivery AS (
    INSERT INTO mesh.delivery_queue AS q (
      broker_message_id, mesh_id, recipient_member_id, priority, enqueued_at, queue)
    SELECT r.message_id, r.mesh_id, r.member_id, r.priority, now_at, r.queue
    FROM recipient AS r ORDER BY r.send, r.member_id
    RETURNING q.delivery_id, q.broker_message_id, q.recipient_member_id
  ),
  delivered AS (
    SELECT q.broker_message_id, array_agg(q.delivery_id ORDER BY q.delivery_id) AS ids,
           array_agg(q.recipient_member_id ORDER BY q.delivery_id) AS members
    FROM delivery AS q WHERE q.recipient_member_id IS NOT NULL GROUP BY q.broker_message_id
  )
  SELECT v.send::integer, CASE WHEN v.refusal IS NULL THEN 'accepted' ELSE 'refused' END, v.refusal,
         v.message_id, v.number, NULL::bytea, NULL::text, NULL::text, NULL::timestamptz, NULL::boolean,
         q.ids, q.members
  FROM verdict AS v LEFT JOIN delivered AS q ON q.broker_message_id = v.message_id;
END
$$;
