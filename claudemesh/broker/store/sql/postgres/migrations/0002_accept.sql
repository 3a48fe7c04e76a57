-- B2 and B3 for a batch, in one round trip and one transaction (broker.md, Accepting a send).
--
-- The arrays hold one element for each send, whose keys differ from one another; mention_sends says by
-- position, from 1, whose the mentions are. One row comes back for each send:
--   'accepted'   with its history id and deliveries,
--   'existing'   with the row that holds its key,
--   'refused'    with the error; nothing of it was written.
--
-- Three statements, because under READ COMMITTED each has a snapshot of its own:
-- 1. the claim. It waits for a transaction that holds the same key; keys are claimed in their order,
--    so that two batches cannot wait for one another;
-- 2. the rows that are really there for keys that were not ours to claim. A row that won and was swept
--    away since is not there: the caller tries the whole batch again (40001);
-- 3. everything else, on one snapshot after the claim: who is refused, which frees its key again, and for
--    the others body, history, deliveries and mentions.
CREATE FUNCTION mesh.accept(
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
  mention_sends integer[],
  mention_keys bytea[]
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
    JOIN mesh.mesh AS m ON m.id = w.mesh_id
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
    FROM unnest(mesh_ids, senders, client_ids, numbers)
           WITH ORDINALITY AS w (mesh_id, sender, client_id, number, send)
    JOIN mesh.client_message_dedupe AS d
      ON d.mesh_id = w.mesh_id AND d.sender_member_id = w.sender AND d.client_message_id = w.client_id
    WHERE d.history_id <> w.number
    ORDER BY w.mesh_id, w.sender, w.client_id COLLATE "C"
    FOR SHARE OF d;
    GET DIAGNOSTICS known = ROW_COUNT;

    -- Without its mesh a send has no key to claim and no sender who could be a member.
    RETURN QUERY
    SELECT w.send::integer, 'refused', 'not_a_member', NULL::uuid, NULL::bigint, NULL::bytea, NULL::text,
           NULL::text, NULL::timestamptz, NULL::boolean, NULL::bigint[], NULL::uuid[]
    FROM unnest(mesh_ids) WITH ORDINALITY AS w (mesh_id, send)
    WHERE NOT EXISTS (SELECT FROM mesh.mesh AS m WHERE m.id = w.mesh_id);
    GET DIAGNOSTICS homeless = ROW_COUNT;

    IF cardinality(claimed) + known + homeless < total THEN
      RAISE EXCEPTION 'a row that won was swept away' USING ERRCODE = 'serialization_failure';
    END IF;
  END IF;

  IF cardinality(claimed) = 0 THEN
    RETURN;
  END IF;

  RETURN QUERY
  WITH wanted AS (
    SELECT w.*, CASE w.kind WHEN 'dm' THEN decode(w.ref, 'hex') END AS dm_key
    FROM unnest(mesh_ids, senders, client_ids, message_ids, numbers, kinds, refs, priorities, envelopes)
           WITH ORDINALITY AS w (mesh_id, sender, client_id, message_id, number, kind, ref, priority,
                                 envelope, send)
    WHERE w.number = ANY (claimed)
  ),
  verdict AS (
    SELECT w.*, r.id AS dm_recipient,
           CASE WHEN s.id IS NULL THEN 'not_a_member'
                WHEN w.kind = 'dm' AND r.id IS NOT NULL THEN NULL
                WHEN w.kind = 'topic' AND t.name IS NOT NULL THEN NULL
                -- A queue too: its fan-out does not exist yet, so nobody is promised anything.
                ELSE 'destination_not_found' END AS refusal
    FROM wanted AS w
    LEFT JOIN mesh.member AS s ON s.id = w.sender AND s.mesh_id = w.mesh_id AND s.status = 'active'
    LEFT JOIN mesh.topic AS t
      ON w.kind = 'topic' AND t.mesh_id = w.mesh_id AND t.name = w.ref AND t.mode = 'topic'
    LEFT JOIN mesh.member_key AS k
      ON k.mesh_id = w.mesh_id AND k.ed25519_pubkey = w.dm_key AND k.state <> 'revoked'
    LEFT JOIN mesh.member AS r ON r.id = k.member_id AND r.status = 'active'
  ),
  freed AS (
    DELETE FROM mesh.client_message_dedupe AS d USING verdict AS v
    WHERE v.refusal IS NOT NULL AND d.mesh_id = v.mesh_id AND d.sender_member_id = v.sender
      AND d.client_message_id = v.client_id
  ),
  queue_body AS (
    INSERT INTO mesh.message_queue (
      id, mesh_id, client_message_id, destination_kind, destination_ref, sender_member_id, envelope, created_at)
    SELECT v.message_id, v.mesh_id, v.client_id, v.kind, v.ref, v.sender, v.envelope, now_at
    FROM verdict AS v WHERE v.refusal IS NULL AND v.kind <> 'topic'
  ),
  topic_body AS (
    INSERT INTO mesh.topic_message (
      id, mesh_id, client_message_id, topic, sender_member_id, envelope, created_at)
    SELECT v.message_id, v.mesh_id, v.client_id, v.ref, v.sender, v.envelope, now_at
    FROM verdict AS v WHERE v.refusal IS NULL AND v.kind = 'topic'
  ),
  history AS (
    INSERT INTO mesh.message_history (
      history_id, broker_message_id, mesh_id, destination_kind, destination_ref, sender_member_id, created_at)
    SELECT v.number, v.message_id, v.mesh_id, v.kind, v.ref, v.sender, now_at
    FROM verdict AS v WHERE v.refusal IS NULL
  ),
  recipient AS (
    SELECT v.send, v.message_id, v.mesh_id, v.priority, v.dm_recipient AS member_id
    FROM verdict AS v WHERE v.refusal IS NULL AND v.kind = 'dm'
    UNION ALL
    SELECT v.send, v.message_id, v.mesh_id, v.priority, s.member_id
    FROM verdict AS v
    JOIN mesh.topic_subscription AS s ON s.mesh_id = v.mesh_id AND s.topic = v.ref
    JOIN mesh.member AS m ON m.id = s.member_id AND m.status = 'active'
    WHERE v.refusal IS NULL AND v.kind = 'topic' AND s.member_id <> v.sender
  ),
  delivery AS (
    INSERT INTO mesh.delivery_queue AS q (
      broker_message_id, mesh_id, recipient_member_id, priority, enqueued_at)
    SELECT r.message_id, r.mesh_id, r.member_id, r.priority, now_at
    FROM recipient AS r ORDER BY r.send, r.member_id
    RETURNING q.delivery_id, q.broker_message_id, q.recipient_member_id
  ),
  mention AS (
    INSERT INTO mesh.mention_index (broker_message_id, mesh_id, mentioned_member_id, created_at)
    SELECT v.message_id, v.mesh_id, k.member_id, now_at
    FROM unnest(mention_sends, mention_keys) AS a (send, key)
    JOIN verdict AS v ON v.send = a.send AND v.refusal IS NULL
    JOIN mesh.member_key AS k ON k.mesh_id = v.mesh_id AND k.ed25519_pubkey = a.key
    ON CONFLICT DO NOTHING
  ),
  delivered AS (
    SELECT q.broker_message_id, array_agg(q.delivery_id ORDER BY q.delivery_id) AS ids,
           array_agg(q.recipient_member_id ORDER BY q.delivery_id) AS members
    FROM delivery AS q GROUP BY q.broker_message_id
  )
  SELECT v.send::integer, CASE WHEN v.refusal IS NULL THEN 'accepted' ELSE 'refused' END, v.refusal,
         v.message_id, v.number, NULL::bytea, NULL::text, NULL::text, NULL::timestamptz, NULL::boolean,
         q.ids, q.members
  FROM verdict AS v LEFT JOIN delivered AS q ON q.broker_message_id = v.message_id;
END
$$;
