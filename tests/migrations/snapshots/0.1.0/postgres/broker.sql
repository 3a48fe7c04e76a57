CREATE SCHEMA mesh;
CREATE FUNCTION mesh.accept(now_at timestamp with time zone, mesh_ids uuid[], senders uuid[], client_ids text[], message_ids uuid[], fingerprints bytea[], kinds text[], refs text[], priorities smallint[], envelopes bytea[], mention_sends integer[], mention_keys bytea[]) RETURNS TABLE(send integer, outcome text, error text, broker_message_id uuid, history_id bigint, request_fingerprint bytea, destination_kind text, destination_ref text, first_seen_at timestamp with time zone, history_available boolean, delivery_ids bigint[], recipients uuid[])
    LANGUAGE plpgsql
    AS $$
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
             WHERE t.mesh_id = w.mesh_id AND t.name = w.ref AND t.mode = 'queue') END AS queue
    FROM unnest(mesh_ids, senders, client_ids, message_ids, numbers, kinds, refs, priorities, envelopes)
           WITH ORDINALITY AS w (mesh_id, sender, client_id, message_id, number, kind, ref, priority,
                                 envelope, send)
    WHERE w.number = ANY (claimed)
  ),
  verdict AS MATERIALIZED (
    SELECT f.*,
           CASE WHEN f.active_sender IS NOT TRUE THEN 'not_a_member'
                WHEN f.dm_recipient IS NULL AND f.topic IS NULL AND f.queue IS NULL
                THEN 'destination_not_found' END AS refusal
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
  mention AS (
    INSERT INTO mesh.mention_index (broker_message_id, mesh_id, mentioned_member_id, created_at)
    SELECT v.message_id, v.mesh_id, k.member_id, now_at
    FROM unnest(mention_sends, mention_keys) AS a (send, key)
    JOIN verdict AS v ON v.send = a.send AND v.refusal IS NULL
    CROSS JOIN LATERAL (
      SELECT e.member_id FROM mesh.member_key AS e
      WHERE e.mesh_id = v.mesh_id AND e.ed25519_pubkey = a.key LIMIT 1) AS k
    ON CONFLICT DO NOTHING
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
CREATE TABLE mesh.audit_event (
    id bigint NOT NULL,
    mesh_id uuid NOT NULL,
    kind text NOT NULL,
    member_id uuid,
    data jsonb NOT NULL,
    created_at timestamp with time zone NOT NULL
);
ALTER TABLE mesh.audit_event ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME mesh.audit_event_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE mesh.client_message_dedupe (
    mesh_id uuid NOT NULL,
    client_message_id text NOT NULL COLLATE pg_catalog."C",
    broker_message_id uuid NOT NULL,
    history_id bigint NOT NULL,
    request_fingerprint bytea NOT NULL,
    destination_kind text NOT NULL,
    destination_ref text NOT NULL,
    sender_member_id uuid NOT NULL,
    first_seen_at timestamp with time zone DEFAULT now() NOT NULL,
    expires_at timestamp with time zone,
    history_available boolean DEFAULT true NOT NULL,
    CONSTRAINT client_message_dedupe_destination_kind_check CHECK ((destination_kind = ANY (ARRAY['topic'::text, 'dm'::text, 'queue'::text])))
);
CREATE TABLE mesh.delivery_queue (
    delivery_id bigint NOT NULL,
    broker_message_id uuid NOT NULL,
    mesh_id uuid NOT NULL,
    recipient_member_id uuid,
    priority smallint NOT NULL,
    enqueued_at timestamp with time zone NOT NULL,
    queue text COLLATE pg_catalog."C"
);
ALTER TABLE mesh.delivery_queue ALTER COLUMN delivery_id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME mesh.delivery_queue_delivery_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE mesh.epoch (
    epoch text NOT NULL
);
CREATE TABLE mesh.invite (
    id text NOT NULL COLLATE pg_catalog."C",
    mesh_id uuid NOT NULL,
    role text NOT NULL,
    created_by bytea NOT NULL,
    expires_at timestamp with time zone NOT NULL,
    max_uses bigint NOT NULL,
    used_count bigint DEFAULT 0 NOT NULL,
    revoked_at timestamp with time zone,
    CONSTRAINT invite_check CHECK ((used_count <= max_uses)),
    CONSTRAINT invite_role_check CHECK ((role = ANY (ARRAY['owner'::text, 'admin'::text, 'member'::text])))
);
CREATE TABLE mesh.member (
    id uuid NOT NULL,
    mesh_id uuid NOT NULL,
    name text NOT NULL COLLATE pg_catalog."C",
    role text NOT NULL,
    status text NOT NULL,
    ed25519_pubkey bytea NOT NULL,
    x25519_pubkey bytea NOT NULL,
    x25519_signature bytea NOT NULL,
    key_id text NOT NULL COLLATE pg_catalog."C",
    ephemeral boolean NOT NULL,
    summary text,
    presence_status text,
    visible boolean DEFAULT true NOT NULL,
    last_seen_at timestamp with time zone,
    last_seen_host_fingerprint bytea,
    created_at timestamp with time zone NOT NULL,
    CONSTRAINT member_role_check CHECK ((role = ANY (ARRAY['owner'::text, 'admin'::text, 'member'::text]))),
    CONSTRAINT member_status_check CHECK ((status = ANY (ARRAY['active'::text, 'revoked'::text, 'left'::text])))
);
CREATE TABLE mesh.member_key (
    key_id text NOT NULL COLLATE pg_catalog."C",
    mesh_id uuid NOT NULL,
    member_id uuid NOT NULL,
    ed25519_pubkey bytea NOT NULL,
    x25519_pubkey bytea NOT NULL,
    state text NOT NULL,
    created_at timestamp with time zone NOT NULL,
    rotated_out_at timestamp with time zone,
    CONSTRAINT member_key_state_check CHECK ((state = ANY (ARRAY['current'::text, 'rotated_out'::text, 'revoked'::text])))
);
CREATE TABLE mesh.mention_index (
    broker_message_id uuid NOT NULL,
    mesh_id uuid NOT NULL,
    mentioned_member_id uuid NOT NULL,
    created_at timestamp with time zone NOT NULL
);
CREATE TABLE mesh.mesh (
    id uuid NOT NULL,
    slug text NOT NULL COLLATE pg_catalog."C",
    clone_concurrency_policy text NOT NULL,
    dedupe_retention_mode text NOT NULL,
    dedupe_retention_days integer DEFAULT 365 NOT NULL,
    message_retention_days integer DEFAULT 90 NOT NULL,
    rate_limit_per_minute integer DEFAULT 6000 NOT NULL,
    created_at timestamp with time zone NOT NULL,
    CONSTRAINT mesh_clone_concurrency_policy_check CHECK ((clone_concurrency_policy = ANY (ARRAY['prefer_newest'::text, 'prefer_oldest'::text, 'allow_concurrent'::text]))),
    CONSTRAINT mesh_dedupe_retention_days_check CHECK ((dedupe_retention_days >= 7)),
    CONSTRAINT mesh_dedupe_retention_mode_check CHECK ((dedupe_retention_mode = ANY (ARRAY['retention_scoped'::text, 'permanent'::text]))),
    CONSTRAINT mesh_message_retention_days_check CHECK ((message_retention_days >= 1)),
    CONSTRAINT mesh_rate_limit_per_minute_check CHECK ((rate_limit_per_minute >= 1))
);
CREATE TABLE mesh.message_history (
    history_id bigint NOT NULL,
    broker_message_id uuid NOT NULL,
    mesh_id uuid NOT NULL,
    destination_kind text NOT NULL,
    destination_ref text NOT NULL,
    sender_member_id uuid NOT NULL,
    created_at timestamp with time zone NOT NULL
);
ALTER TABLE mesh.message_history ALTER COLUMN history_id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME mesh.message_history_history_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE mesh.message_queue (
    id uuid NOT NULL,
    mesh_id uuid NOT NULL,
    client_message_id text NOT NULL COLLATE pg_catalog."C",
    destination_kind text NOT NULL,
    destination_ref text NOT NULL,
    sender_member_id uuid NOT NULL,
    envelope bytea NOT NULL,
    created_at timestamp with time zone NOT NULL
);
CREATE TABLE mesh.message_tombstone (
    broker_message_id uuid NOT NULL,
    mesh_id uuid NOT NULL,
    deleted_at timestamp with time zone NOT NULL,
    reason text NOT NULL
);
CREATE TABLE mesh.presence (
    connection_id text NOT NULL COLLATE pg_catalog."C",
    member_id uuid NOT NULL,
    mesh_id uuid NOT NULL,
    broker_id text NOT NULL COLLATE pg_catalog."C",
    connected_at timestamp with time zone NOT NULL,
    lease_until timestamp with time zone NOT NULL,
    instance_id text DEFAULT ''::text NOT NULL COLLATE pg_catalog."C"
);
CREATE TABLE mesh.schema_migration (
    version integer NOT NULL,
    applied_at timestamp with time zone DEFAULT now() NOT NULL
);
CREATE TABLE mesh.topic (
    mesh_id uuid NOT NULL,
    name text NOT NULL COLLATE pg_catalog."C",
    mode text NOT NULL,
    created_by uuid NOT NULL,
    created_at timestamp with time zone NOT NULL,
    CONSTRAINT topic_mode_check CHECK ((mode = ANY (ARRAY['topic'::text, 'queue'::text])))
);
CREATE TABLE mesh.topic_message (
    id uuid NOT NULL,
    mesh_id uuid NOT NULL,
    client_message_id text NOT NULL COLLATE pg_catalog."C",
    topic text NOT NULL COLLATE pg_catalog."C",
    sender_member_id uuid NOT NULL,
    envelope bytea NOT NULL,
    created_at timestamp with time zone NOT NULL
);
CREATE TABLE mesh.topic_subscription (
    mesh_id uuid NOT NULL,
    topic text NOT NULL COLLATE pg_catalog."C",
    member_id uuid NOT NULL,
    since timestamp with time zone NOT NULL
);
INSERT INTO mesh.audit_event OVERRIDING SYSTEM VALUE VALUES (1, '01a21ef8-28ba-83ee-a897-49977fa061e3', 'mesh_created', '01a21ef8-28ba-83ee-a897-49977fa061e4', '{"slug": "demo"}', '2026-11-27 21:45:09.574+00');
INSERT INTO mesh.audit_event OVERRIDING SYSTEM VALUE VALUES (2, '01a21ef8-28ba-83ee-a897-49977fa061e3', 'member_joined', '01a21ef8-2ae2-59e2-fb16-d04cefdbecfe', '{"role": "member"}', '2026-11-27 21:45:10.123+00');
INSERT INTO mesh.audit_event OVERRIDING SYSTEM VALUE VALUES (3, '01a21ef8-28ba-83ee-a897-49977fa061e3', 'member_joined', '01a21ef8-2d4b-4a48-e5e5-498d5141f2ff', '{"role": "member"}', '2026-11-27 21:45:10.738+00');
INSERT INTO mesh.audit_event OVERRIDING SYSTEM VALUE VALUES (4, '01a21ef8-28ba-83ee-a897-49977fa061e3', 'member_joined', '01a21ef8-2ef8-21ab-994a-3a011488deec', '{"role": "member"}', '2026-11-27 21:45:11.165+00');
INSERT INTO mesh.audit_event OVERRIDING SYSTEM VALUE VALUES (5, '01a21ef8-28ba-83ee-a897-49977fa061e3', 'member_joined', '01a21ef8-43af-3acd-b54d-5de72f06fdb5', '{"role": "member"}', '2026-11-27 21:45:16.468+00');
INSERT INTO mesh.audit_event OVERRIDING SYSTEM VALUE VALUES (6, '01a21ef8-28ba-83ee-a897-49977fa061e3', 'member_revoked', '01a21ef8-2ef8-21ab-994a-3a011488deec', '{}', '2026-11-27 21:45:19.51+00');
INSERT INTO mesh.client_message_dedupe VALUES ('01a21ef8-28ba-83ee-a897-49977fa061e3', 'dm-1', '01a21ef8-43d1-5d6e-8c4f-4d680a50fde4', 1, '\x70043fa6ed9fc9568ed80d9830220da27183ecfd4562fb1ee13978582dcbde32', 'dm', 'f2723bf4cfeb616c5c80bec9e6e97602670fb28b804679131dac133012ed4266', '01a21ef8-28ba-83ee-a897-49977fa061e4', '2026-11-27 21:45:16.498+00', '2027-11-27 21:45:16.498+00', true);
INSERT INTO mesh.client_message_dedupe VALUES ('01a21ef8-28ba-83ee-a897-49977fa061e3', 'queue-1', '01a21ef8-43d6-2e1b-aeed-ebb283afad61', 3, '\x8d721996f52194235dac478960c6ec5a0a15e3543d4988d6bc6250bcb0a139e8', 'queue', 'builds', '01a21ef8-28ba-83ee-a897-49977fa061e4', '2026-11-27 21:45:16.523+00', '2027-11-27 21:45:16.523+00', true);
INSERT INTO mesh.client_message_dedupe VALUES ('01a21ef8-28ba-83ee-a897-49977fa061e3', 'topic-1', '01a21ef8-43d6-2e1b-aeed-ebb283afad60', 2, '\xa1d8563e5f5c6cf5c7bccae5f35b8d6a41cc3f875233cab726f48302e38d8d91', 'topic', 'deploys', '01a21ef8-28ba-83ee-a897-49977fa061e4', '2026-11-27 21:45:16.523+00', '2027-11-27 21:45:16.523+00', true);
INSERT INTO mesh.client_message_dedupe VALUES ('01a21ef8-28ba-83ee-a897-49977fa061e3', 'dm-b', '01a21ef8-440d-cdac-4d0b-c6f591e9cfc7', 4, '\x74e3658c4f81ff096044e75bc989a045a02a32f04af9af38ddd5322e9a76f25f', 'dm', '59fbaf9fe72bc448088da0e905d2a527421b43148040d158a20ab9e20773e8d7', '01a21ef8-2ae2-59e2-fb16-d04cefdbecfe', '2026-11-27 21:45:16.557+00', '2027-11-27 21:45:16.557+00', true);
INSERT INTO mesh.client_message_dedupe VALUES ('01a21ef8-28ba-83ee-a897-49977fa061e3', 'dm-sealed', '01a21ef8-4a1e-3497-b323-65946d02649e', 5, '\xecbdf3850e61470639a0cd4e0a1b9c5ed52d427b1a923d2a0a06c0ca87d433e4', 'dm', 'f2723bf4cfeb616c5c80bec9e6e97602670fb28b804679131dac133012ed4266', '01a21ef8-28ba-83ee-a897-49977fa061e4', '2026-11-27 21:45:18.11+00', '2027-11-27 21:45:18.11+00', true);
INSERT INTO mesh.client_message_dedupe VALUES ('01a21ef8-28ba-83ee-a897-49977fa061e3', 'dm-again', '01a21ef8-4d73-4818-2fcd-640616ca88fb', 6, '\xf9c248fa3931fafc5920f1488fc0d25b0ca6890d0ddf3a018e95230fdc71dcef', 'dm', 'f2723bf4cfeb616c5c80bec9e6e97602670fb28b804679131dac133012ed4266', '01a21ef8-28ba-83ee-a897-49977fa061e4', '2026-11-27 21:45:18.964+00', '2027-11-27 21:45:18.964+00', true);
INSERT INTO mesh.client_message_dedupe VALUES ('01a21ef8-28ba-83ee-a897-49977fa061e3', 'dm-2', '01a21ef8-4ec5-9d10-837e-85e35e6892f4', 7, '\xe3d69cf448bcda40f570f60fc80c7acf85f13fd2831a5a86f3c4c0cd67cc81ac', 'dm', 'f2723bf4cfeb616c5c80bec9e6e97602670fb28b804679131dac133012ed4266', '01a21ef8-28ba-83ee-a897-49977fa061e4', '2026-11-27 21:45:19.301+00', '2027-11-27 21:45:19.301+00', true);
INSERT INTO mesh.client_message_dedupe VALUES ('01a21ef8-28ba-83ee-a897-49977fa061e3', 'topic-2', '01a21ef8-4ec8-48ca-fd46-60c958ca3565', 8, '\x22b634ffc7c7d5cb762bee89747a5f3b05443d59a04b3fad88e31cae39bf0470', 'topic', 'deploys', '01a21ef8-28ba-83ee-a897-49977fa061e4', '2026-11-27 21:45:19.306+00', '2027-11-27 21:45:19.306+00', true);
INSERT INTO mesh.client_message_dedupe VALUES ('01a21ef8-28ba-83ee-a897-49977fa061e3', 'topic-3', '01a21ef8-4ecf-d8dc-fe06-ba5e896eafde', 9, '\xb3f2a1689463921f281c00b126121179cec4171bf3fd5fd9bf36899ff1c9994a', 'topic', 'deploys', '01a21ef8-28ba-83ee-a897-49977fa061e4', '2026-11-27 21:45:19.311+00', '2027-11-27 21:45:19.311+00', true);
INSERT INTO mesh.client_message_dedupe VALUES ('01a21ef8-28ba-83ee-a897-49977fa061e3', 'queue-2', '01a21ef8-4ed2-16be-d63f-c1dcd4310ef6', 10, '\xba794ccaa9d64cbba36e09749fcb71d58de21dd1b4ef16ded0de58b46b6c47b1', 'queue', 'builds', '01a21ef8-28ba-83ee-a897-49977fa061e4', '2026-11-27 21:45:19.314+00', '2027-11-27 21:45:19.314+00', true);
INSERT INTO mesh.client_message_dedupe VALUES ('01a21ef8-28ba-83ee-a897-49977fa061e3', 'dm-dave', '01a21ef8-4ed9-e0c8-469c-4b1e73683f9d', 11, '\x75e3a3eeaf3be454ebac94b4f23824af366dfe0dfb36e2d0379744f866b05f8b', 'dm', '07279ba588ed03f1a8a0c78ae4d93fb8a24ab848a36cdef012a8f44984148003', '01a21ef8-28ba-83ee-a897-49977fa061e4', '2026-11-27 21:45:19.321+00', '2027-11-27 21:45:19.321+00', true);
INSERT INTO mesh.client_message_dedupe VALUES ('01a21ef8-28ba-83ee-a897-49977fa061e3', 'inflight-1', '01a21ef8-5443-694b-de99-c97a25f23028', 16, '\xcb48111c8f5e2a7b0f4c69aba9f585a83771a8327773f46f31764be2b20ddb53', 'topic', 'deploys', '01a21ef8-28ba-83ee-a897-49977fa061e4', '2026-11-27 21:45:20.707+00', '2027-11-27 21:45:20.707+00', true);
INSERT INTO mesh.delivery_queue OVERRIDING SYSTEM VALUE VALUES (6, '01a21ef8-4d73-4818-2fcd-640616ca88fb', '01a21ef8-28ba-83ee-a897-49977fa061e3', '01a21ef8-2ae2-59e2-fb16-d04cefdbecfe', 1, '2026-11-27 21:45:18.964+00', NULL);
INSERT INTO mesh.delivery_queue OVERRIDING SYSTEM VALUE VALUES (7, '01a21ef8-4ec5-9d10-837e-85e35e6892f4', '01a21ef8-28ba-83ee-a897-49977fa061e3', '01a21ef8-2ae2-59e2-fb16-d04cefdbecfe', 0, '2026-11-27 21:45:19.301+00', NULL);
INSERT INTO mesh.delivery_queue OVERRIDING SYSTEM VALUE VALUES (8, '01a21ef8-4ec8-48ca-fd46-60c958ca3565', '01a21ef8-28ba-83ee-a897-49977fa061e3', '01a21ef8-2ae2-59e2-fb16-d04cefdbecfe', 1, '2026-11-27 21:45:19.306+00', NULL);
INSERT INTO mesh.delivery_queue OVERRIDING SYSTEM VALUE VALUES (9, '01a21ef8-4ecf-d8dc-fe06-ba5e896eafde', '01a21ef8-28ba-83ee-a897-49977fa061e3', '01a21ef8-2ae2-59e2-fb16-d04cefdbecfe', 1, '2026-11-27 21:45:19.311+00', NULL);
INSERT INTO mesh.delivery_queue OVERRIDING SYSTEM VALUE VALUES (10, '01a21ef8-4ed2-16be-d63f-c1dcd4310ef6', '01a21ef8-28ba-83ee-a897-49977fa061e3', NULL, 1, '2026-11-27 21:45:19.314+00', 'builds');
INSERT INTO mesh.delivery_queue OVERRIDING SYSTEM VALUE VALUES (11, '01a21ef8-4ed9-e0c8-469c-4b1e73683f9d', '01a21ef8-28ba-83ee-a897-49977fa061e3', '01a21ef8-2ef8-21ab-994a-3a011488deec', 1, '2026-11-27 21:45:19.321+00', NULL);
INSERT INTO mesh.delivery_queue OVERRIDING SYSTEM VALUE VALUES (12, '01a21ef8-5443-694b-de99-c97a25f23028', '01a21ef8-28ba-83ee-a897-49977fa061e3', '01a21ef8-2ae2-59e2-fb16-d04cefdbecfe', 1, '2026-11-27 21:45:20.707+00', NULL);
INSERT INTO mesh.epoch VALUES ('b598db3ddd064956ae48b1894b432aab');
INSERT INTO mesh.invite VALUES ('01M8FFGAEE26AQSM5VY2NA0XM4', '01a21ef8-28ba-83ee-a897-49977fa061e3', 'member', '\x59fbaf9fe72bc448088da0e905d2a527421b43148040d158a20ab9e20773e8d7', '2026-11-28 21:45:09.838+00', 1, 1, NULL);
INSERT INTO mesh.invite VALUES ('01M8FFGAZ2Q9A0017SEEDAZ34Y', '01a21ef8-28ba-83ee-a897-49977fa061e3', 'member', '\x59fbaf9fe72bc448088da0e905d2a527421b43148040d158a20ab9e20773e8d7', '2026-11-28 21:45:10.37+00', 1, 1, NULL);
INSERT INTO mesh.invite VALUES ('01M8FFGBHDTQ4F775N9800NV33', '01a21ef8-28ba-83ee-a897-49977fa061e3', 'member', '\x59fbaf9fe72bc448088da0e905d2a527421b43148040d158a20ab9e20773e8d7', '2026-11-28 21:45:10.957+00', 1, 1, NULL);
INSERT INTO mesh.invite VALUES ('01M8FFGGWHZ3H860J29JAQNKS6', '01a21ef8-28ba-83ee-a897-49977fa061e3', 'member', '\x59fbaf9fe72bc448088da0e905d2a527421b43148040d158a20ab9e20773e8d7', '2026-11-28 21:45:16.433+00', 1, 1, NULL);
INSERT INTO mesh.member VALUES ('01a21ef8-2ae2-59e2-fb16-d04cefdbecfe', '01a21ef8-28ba-83ee-a897-49977fa061e3', 'bob', 'member', 'active', '\xf2723bf4cfeb616c5c80bec9e6e97602670fb28b804679131dac133012ed4266', '\xa57f716214854c1586e5dddfa48646faf2028b6ecafc7fbcd7037f326aaf9e7f', '\xf8813bf5d45034d070422ed5388773c3a595c22896877eac300855ece8a9f82634867f0e45187e7d2a07b79ace8c930f32e44b181070f78c22b4e39503c43e0c', 'k_01M8FFGAPXSDCWYR02E6BNEJEA', false, NULL, NULL, true, '2026-11-27 21:45:18.976+00', '\x49f790329d20835ba9afd207c6a977e1a051b17813467d751cdbf1a720a856c5', '2026-11-27 21:45:10.114+00');
INSERT INTO mesh.member VALUES ('01a21ef8-2ef8-21ab-994a-3a011488deec', '01a21ef8-28ba-83ee-a897-49977fa061e3', 'dave', 'member', 'revoked', '\x07279ba588ed03f1a8a0c78ae4d93fb8a24ab848a36cdef012a8f44984148003', '\xc955dbfa95a94a0a76bdd30de58b6857f79b36a00012021a0c30a2340c4a3a4a', '\x7260e31f27c522892f02e440effbaddc8effeae8ed3a89e044b4ac3b5d70c17c3775961b5634f95fd1d6a9f11a8f596973499b3dc79c6f20de77ebc08b7dec0d', 'k_01M8FFGBQH7A6DXHABDV8YD34E', false, NULL, NULL, true, '2026-11-27 21:45:19.14+00', '\x49f790329d20835ba9afd207c6a977e1a051b17813467d751cdbf1a720a856c5', '2026-11-27 21:45:11.16+00');
INSERT INTO mesh.member VALUES ('01a21ef8-28ba-83ee-a897-49977fa061e4', '01a21ef8-28ba-83ee-a897-49977fa061e3', 'alice', 'owner', 'active', '\x59fbaf9fe72bc448088da0e905d2a527421b43148040d158a20ab9e20773e8d7', '\x90c490ce6b0abc13a30b0ac5ee77ccca0aabb38600b651ebb96a282c85675268', '\xca487af28d1d0fc54f4e55bcd8c6e094d60325b61da9f0951e0a254675f94111f7cf5a8e04a17bf5b6f4acfbf63fc200277ec10118ba6ec560610c133a50c902', 'k_01M8FFGA5N9N7A834CZF19Z2PA', false, NULL, NULL, true, '2026-11-27 21:45:20.679+00', '\x49f790329d20835ba9afd207c6a977e1a051b17813467d751cdbf1a720a856c5', '2026-11-27 21:45:09.562+00');
INSERT INTO mesh.member VALUES ('01a21ef8-2d4b-4a48-e5e5-498d5141f2ff', '01a21ef8-28ba-83ee-a897-49977fa061e3', 'carol', 'member', 'active', '\x4ac0f4c31f4c0abedb3b65799643888287f13ee1fbd33e1b17a62e1b749a1e77', '\xbd18e5cf953a905524eba410cffad0513f99f60ec0b9ea37ea3a8f5559a61d70', '\x8c9e9be4345ee2cb3f1303395ed6ac913d19ce2f06aa9a0d2f0e3ec1b9bf67c0fface49fa42eba027c44944dd11c3fe2be4987b63db217f97cdcac6fb450fe05', 'k_01M8FFGBA1RF1FSWH55HGVPC5E', false, NULL, NULL, true, '2026-11-27 21:45:20.719+00', '\x49f790329d20835ba9afd207c6a977e1a051b17813467d751cdbf1a720a856c5', '2026-11-27 21:45:10.731+00');
INSERT INTO mesh.member VALUES ('01a21ef8-43af-3acd-b54d-5de72f06fdb5', '01a21ef8-28ba-83ee-a897-49977fa061e3', 'erin', 'member', 'left', '\x65f280f0be5179b3b9ab70120078b44e63c1572717b754693e69c49ffe01cf62', '\x691ea0f7fbe6ce3ce7a49feb6f46e00a8b10f3d2315cf39cda183c688ab9f93d', '\x12fe87963cc91cf3bded38d074653a6f9fc5e4b1e2fddc24e86b1fc0d49e8d6e2c65942dc8691f398a3713cda10af82d0a057342e35d3b292e48fca3375c8900', 'k_01M8ETSW7ZWJCQK08NTRMFSMNW', true, NULL, NULL, true, NULL, NULL, '2026-11-27 21:45:16.463+00');
INSERT INTO mesh.member_key VALUES ('k_01M8FFGA5N9N7A834CZF19Z2PA', '01a21ef8-28ba-83ee-a897-49977fa061e3', '01a21ef8-28ba-83ee-a897-49977fa061e4', '\x59fbaf9fe72bc448088da0e905d2a527421b43148040d158a20ab9e20773e8d7', '\x90c490ce6b0abc13a30b0ac5ee77ccca0aabb38600b651ebb96a282c85675268', 'current', '2026-11-27 21:45:09.562+00', NULL);
INSERT INTO mesh.member_key VALUES ('k_01M8FFGAPXSDCWYR02E6BNEJEA', '01a21ef8-28ba-83ee-a897-49977fa061e3', '01a21ef8-2ae2-59e2-fb16-d04cefdbecfe', '\xf2723bf4cfeb616c5c80bec9e6e97602670fb28b804679131dac133012ed4266', '\xa57f716214854c1586e5dddfa48646faf2028b6ecafc7fbcd7037f326aaf9e7f', 'current', '2026-11-27 21:45:10.114+00', NULL);
INSERT INTO mesh.member_key VALUES ('k_01M8FFGBA1RF1FSWH55HGVPC5E', '01a21ef8-28ba-83ee-a897-49977fa061e3', '01a21ef8-2d4b-4a48-e5e5-498d5141f2ff', '\x4ac0f4c31f4c0abedb3b65799643888287f13ee1fbd33e1b17a62e1b749a1e77', '\xbd18e5cf953a905524eba410cffad0513f99f60ec0b9ea37ea3a8f5559a61d70', 'current', '2026-11-27 21:45:10.731+00', NULL);
INSERT INTO mesh.member_key VALUES ('k_01M8FFGBQH7A6DXHABDV8YD34E', '01a21ef8-28ba-83ee-a897-49977fa061e3', '01a21ef8-2ef8-21ab-994a-3a011488deec', '\x07279ba588ed03f1a8a0c78ae4d93fb8a24ab848a36cdef012a8f44984148003', '\xc955dbfa95a94a0a76bdd30de58b6857f79b36a00012021a0c30a2340c4a3a4a', 'current', '2026-11-27 21:45:11.16+00', NULL);
INSERT INTO mesh.member_key VALUES ('k_01M8ETSW7ZWJCQK08NTRMFSMNW', '01a21ef8-28ba-83ee-a897-49977fa061e3', '01a21ef8-43af-3acd-b54d-5de72f06fdb5', '\x65f280f0be5179b3b9ab70120078b44e63c1572717b754693e69c49ffe01cf62', '\x691ea0f7fbe6ce3ce7a49feb6f46e00a8b10f3d2315cf39cda183c688ab9f93d', 'current', '2026-11-27 21:45:16.463+00', NULL);
INSERT INTO mesh.mention_index VALUES ('01a21ef8-43d6-2e1b-aeed-ebb283afad60', '01a21ef8-28ba-83ee-a897-49977fa061e3', '01a21ef8-2ae2-59e2-fb16-d04cefdbecfe', '2026-11-27 21:45:16.523+00');
INSERT INTO mesh.mention_index VALUES ('01a21ef8-4ecf-d8dc-fe06-ba5e896eafde', '01a21ef8-28ba-83ee-a897-49977fa061e3', '01a21ef8-2ae2-59e2-fb16-d04cefdbecfe', '2026-11-27 21:45:19.311+00');
INSERT INTO mesh.mention_index VALUES ('01a21ef8-4ecf-d8dc-fe06-ba5e896eafde', '01a21ef8-28ba-83ee-a897-49977fa061e3', '01a21ef8-2d4b-4a48-e5e5-498d5141f2ff', '2026-11-27 21:45:19.311+00');
INSERT INTO mesh.mesh VALUES ('01a21ef8-28ba-83ee-a897-49977fa061e3', 'demo', 'prefer_newest', 'retention_scoped', 365, 90, 6000, '2026-11-27 21:45:09.562+00');
INSERT INTO mesh.message_history VALUES (1, '01a21ef8-43d1-5d6e-8c4f-4d680a50fde4', '01a21ef8-28ba-83ee-a897-49977fa061e3', 'dm', 'f2723bf4cfeb616c5c80bec9e6e97602670fb28b804679131dac133012ed4266', '01a21ef8-28ba-83ee-a897-49977fa061e4', '2026-11-27 21:45:16.498+00');
INSERT INTO mesh.message_history VALUES (2, '01a21ef8-43d6-2e1b-aeed-ebb283afad60', '01a21ef8-28ba-83ee-a897-49977fa061e3', 'topic', 'deploys', '01a21ef8-28ba-83ee-a897-49977fa061e4', '2026-11-27 21:45:16.523+00');
INSERT INTO mesh.message_history VALUES (3, '01a21ef8-43d6-2e1b-aeed-ebb283afad61', '01a21ef8-28ba-83ee-a897-49977fa061e3', 'queue', 'builds', '01a21ef8-28ba-83ee-a897-49977fa061e4', '2026-11-27 21:45:16.523+00');
INSERT INTO mesh.message_history VALUES (4, '01a21ef8-440d-cdac-4d0b-c6f591e9cfc7', '01a21ef8-28ba-83ee-a897-49977fa061e3', 'dm', '59fbaf9fe72bc448088da0e905d2a527421b43148040d158a20ab9e20773e8d7', '01a21ef8-2ae2-59e2-fb16-d04cefdbecfe', '2026-11-27 21:45:16.557+00');
INSERT INTO mesh.message_history VALUES (5, '01a21ef8-4a1e-3497-b323-65946d02649e', '01a21ef8-28ba-83ee-a897-49977fa061e3', 'dm', 'f2723bf4cfeb616c5c80bec9e6e97602670fb28b804679131dac133012ed4266', '01a21ef8-28ba-83ee-a897-49977fa061e4', '2026-11-27 21:45:18.11+00');
INSERT INTO mesh.message_history VALUES (6, '01a21ef8-4d73-4818-2fcd-640616ca88fb', '01a21ef8-28ba-83ee-a897-49977fa061e3', 'dm', 'f2723bf4cfeb616c5c80bec9e6e97602670fb28b804679131dac133012ed4266', '01a21ef8-28ba-83ee-a897-49977fa061e4', '2026-11-27 21:45:18.964+00');
INSERT INTO mesh.message_history VALUES (7, '01a21ef8-4ec5-9d10-837e-85e35e6892f4', '01a21ef8-28ba-83ee-a897-49977fa061e3', 'dm', 'f2723bf4cfeb616c5c80bec9e6e97602670fb28b804679131dac133012ed4266', '01a21ef8-28ba-83ee-a897-49977fa061e4', '2026-11-27 21:45:19.301+00');
INSERT INTO mesh.message_history VALUES (8, '01a21ef8-4ec8-48ca-fd46-60c958ca3565', '01a21ef8-28ba-83ee-a897-49977fa061e3', 'topic', 'deploys', '01a21ef8-28ba-83ee-a897-49977fa061e4', '2026-11-27 21:45:19.306+00');
INSERT INTO mesh.message_history VALUES (9, '01a21ef8-4ecf-d8dc-fe06-ba5e896eafde', '01a21ef8-28ba-83ee-a897-49977fa061e3', 'topic', 'deploys', '01a21ef8-28ba-83ee-a897-49977fa061e4', '2026-11-27 21:45:19.311+00');
INSERT INTO mesh.message_history VALUES (10, '01a21ef8-4ed2-16be-d63f-c1dcd4310ef6', '01a21ef8-28ba-83ee-a897-49977fa061e3', 'queue', 'builds', '01a21ef8-28ba-83ee-a897-49977fa061e4', '2026-11-27 21:45:19.314+00');
INSERT INTO mesh.message_history VALUES (11, '01a21ef8-4ed9-e0c8-469c-4b1e73683f9d', '01a21ef8-28ba-83ee-a897-49977fa061e3', 'dm', '07279ba588ed03f1a8a0c78ae4d93fb8a24ab848a36cdef012a8f44984148003', '01a21ef8-28ba-83ee-a897-49977fa061e4', '2026-11-27 21:45:19.321+00');
INSERT INTO mesh.message_history VALUES (16, '01a21ef8-5443-694b-de99-c97a25f23028', '01a21ef8-28ba-83ee-a897-49977fa061e3', 'topic', 'deploys', '01a21ef8-28ba-83ee-a897-49977fa061e4', '2026-11-27 21:45:20.707+00');
INSERT INTO mesh.message_queue VALUES ('01a21ef8-43d1-5d6e-8c4f-4d680a50fde4', '01a21ef8-28ba-83ee-a897-49977fa061e3', 'dm-1', 'dm', 'f2723bf4cfeb616c5c80bec9e6e97602670fb28b804679131dac133012ed4266', '01a21ef8-28ba-83ee-a897-49977fa061e4', '\x7b2276223a312c22636c69656e745f6d6573736167655f6964223a22646d2d31222c2264657374696e6174696f6e5f6b696e64223a22646d222c2264657374696e6174696f6e5f726566223a2266323732336266346366656236313663356338306265633965366539373630323637306662323862383034363739313331646163313333303132656434323636222c227265706c795f746f5f6964223a6e756c6c2c227072696f72697479223a226e657874222c226d656e74696f6e73223a5b5d2c22626f6479223a224e4a4e6e34502f5a59625a6f366b53566c43566a322b5637446e574b7556764a6e6d4f6d645836365947324162584e4a374237495651356d496d413949413d3d222c227365616c223a7b22616c67223a22626f78222c2273656e6465725f6b65795f6964223a226b5f30314d3846464741354e394e3741383334435a4631395a325041222c226e6f6e6365223a22564c6a634e614b4d79756e79653648703656694467485a4d63766c344f555478222c22726563697069656e745f6b65795f6964223a226b5f30314d3846464741505853444357595230324536424e454a4541227d2c22726571756573745f66696e6765727072696e74223a2237303034336661366564396663393536386564383064393833303232306461323731383365636664343536326662316565313339373835383264636264653332222c227369676e6174757265223a22673133626b575862505a6f783336474a66716c4c384344366f69746b316c79656c69766c47444c68423138346a65317531466c764b33367658646d753044326d4b5969726f494c753871766361364c42486e624b41773d3d227d', '2026-11-27 21:45:16.498+00');
INSERT INTO mesh.message_queue VALUES ('01a21ef8-43d6-2e1b-aeed-ebb283afad61', '01a21ef8-28ba-83ee-a897-49977fa061e3', 'queue-1', 'queue', 'builds', '01a21ef8-28ba-83ee-a897-49977fa061e4', '\x7b2276223a312c22636c69656e745f6d6573736167655f6964223a2271756575652d31222c2264657374696e6174696f6e5f6b696e64223a227175657565222c2264657374696e6174696f6e5f726566223a226275696c6473222c227265706c795f746f5f6964223a6e756c6c2c227072696f72697479223a226e657874222c226d656e74696f6e73223a5b5d2c22626f6479223a2265794a745a584e7a5957646c496a6f696358566c645755674d534973496d316c644745694f6d353162477839222c227365616c223a7b22616c67223a226e6f6e65222c2273656e6465725f6b65795f6964223a226b5f30314d3846464741354e394e3741383334435a4631395a325041227d2c22726571756573745f66696e6765727072696e74223a2238643732313939366635323139343233356461633437383936306336656335613061313565333534336434393838643662633632353062636230613133396538222c227369676e6174757265223a22595a62745a6e6b74704966452b73647051397039492f614a36624f677152644e784c4d4d4c456f476547524f39534372553754352b7935566c39696d6d666b7751776b447330714f6e7274586b5146774b744d7644413d3d227d', '2026-11-27 21:45:16.523+00');
INSERT INTO mesh.message_queue VALUES ('01a21ef8-440d-cdac-4d0b-c6f591e9cfc7', '01a21ef8-28ba-83ee-a897-49977fa061e3', 'dm-b', 'dm', '59fbaf9fe72bc448088da0e905d2a527421b43148040d158a20ab9e20773e8d7', '01a21ef8-2ae2-59e2-fb16-d04cefdbecfe', '\x7b2276223a312c22636c69656e745f6d6573736167655f6964223a22646d2d62222c2264657374696e6174696f6e5f6b696e64223a22646d222c2264657374696e6174696f6e5f726566223a2235396662616639666537326263343438303838646130653930356432613532373432316234333134383034306431353861323061623965323037373365386437222c227265706c795f746f5f6964223a6e756c6c2c227072696f72697479223a226e657874222c226d656e74696f6e73223a5b5d2c22626f6479223a224a494932756b5235332b33353131306d5077482b6f787476754a344932676e393555756c6a367a2f576558437036365749555a6a757a52786832304974413d3d222c227365616c223a7b22616c67223a22626f78222c2273656e6465725f6b65795f6964223a226b5f30314d3846464741505853444357595230324536424e454a4541222c226e6f6e6365223a225661375471356a5636676973497175326d55627a65624a6b356a3654374b6631222c22726563697069656e745f6b65795f6964223a226b5f30314d3846464741354e394e3741383334435a4631395a325041227d2c22726571756573745f66696e6765727072696e74223a2237346533363538633466383166663039363034346537356263393839613034356130326133326630346166396166333864646435333232653961373666323566222c227369676e6174757265223a22735a727154336437422b725161664e4175593570726f3877475368582b427846586259717773443471672b6933794b7346334d777170587a79446737775652514c6b58356c484437382f6254524948526f4d305443513d3d227d', '2026-11-27 21:45:16.557+00');
INSERT INTO mesh.message_queue VALUES ('01a21ef8-4a1e-3497-b323-65946d02649e', '01a21ef8-28ba-83ee-a897-49977fa061e3', 'dm-sealed', 'dm', 'f2723bf4cfeb616c5c80bec9e6e97602670fb28b804679131dac133012ed4266', '01a21ef8-28ba-83ee-a897-49977fa061e4', '\x7b2276223a312c22636c69656e745f6d6573736167655f6964223a22646d2d7365616c6564222c2264657374696e6174696f6e5f6b696e64223a22646d222c2264657374696e6174696f6e5f726566223a2266323732336266346366656236313663356338306265633965366539373630323637306662323862383034363739313331646163313333303132656434323636222c227265706c795f746f5f6964223a6e756c6c2c227072696f72697479223a226e657874222c226d656e74696f6e73223a5b5d2c22626f6479223a226d70335077314349717a5036356e587a6247714475764c3372396d787a316d737a53756565624c59314a6b6c686e4a2f582b2f746a54767a625152696479474a586d3870222c227365616c223a7b22616c67223a22626f78222c2273656e6465725f6b65795f6964223a226b5f30314d3846464741354e394e3741383334435a4631395a325041222c226e6f6e6365223a2256654141467572715665522b38463932344e6e2f713945413043634531335861222c22726563697069656e745f6b65795f6964223a226b5f30314d3846464741505853444357595230324536424e454a4541227d2c22726571756573745f66696e6765727072696e74223a2265636264663338353065363134373036333961306364346530613162396335656435326434323762316139323364326130613036633063613837643433336534222c227369676e6174757265223a22657271495a4b6a394e476e43725758544f4a7341574f59547049686c33767268612f7a49676761555248316d5a47696b53764d35466f727532333565755041315a4b31474436553177467879725367365a30616444773d3d227d', '2026-11-27 21:45:18.11+00');
INSERT INTO mesh.message_queue VALUES ('01a21ef8-4d73-4818-2fcd-640616ca88fb', '01a21ef8-28ba-83ee-a897-49977fa061e3', 'dm-again', 'dm', 'f2723bf4cfeb616c5c80bec9e6e97602670fb28b804679131dac133012ed4266', '01a21ef8-28ba-83ee-a897-49977fa061e4', '\x7b2276223a312c22636c69656e745f6d6573736167655f6964223a22646d2d616761696e222c2264657374696e6174696f6e5f6b696e64223a22646d222c2264657374696e6174696f6e5f726566223a2266323732336266346366656236313663356338306265633965366539373630323637306662323862383034363739313331646163313333303132656434323636222c227265706c795f746f5f6964223a6e756c6c2c227072696f72697479223a226e657874222c226d656e74696f6e73223a5b5d2c22626f6479223a22556a4237452f714a3051634c7057376565514d6d67784a4b2f57465531626971677a7936746b744477396762797554333056754b797346762b58762f78394d336632733d222c227365616c223a7b22616c67223a22626f78222c2273656e6465725f6b65795f6964223a226b5f30314d3846464741354e394e3741383334435a4631395a325041222c226e6f6e6365223a226462354844613467543876616468514137386a57396d6d7768424775422b4d37222c22726563697069656e745f6b65795f6964223a226b5f30314d3846464741505853444357595230324536424e454a4541227d2c22726571756573745f66696e6765727072696e74223a2266396332343866613339333166616663353932306631343838666330643235623063613638393064306464663361303138653935323330666463373164636566222c227369676e6174757265223a224b412b4f5a6c4e3945324d4e615372463768693335634f6b45334759674235626377646a4b4b32355066734a46645a3767675a6d6a7558396c323767676a464c555452627a44634732386b55456449713839554642413d3d227d', '2026-11-27 21:45:18.964+00');
INSERT INTO mesh.message_queue VALUES ('01a21ef8-4ec5-9d10-837e-85e35e6892f4', '01a21ef8-28ba-83ee-a897-49977fa061e3', 'dm-2', 'dm', 'f2723bf4cfeb616c5c80bec9e6e97602670fb28b804679131dac133012ed4266', '01a21ef8-28ba-83ee-a897-49977fa061e4', '\x7b2276223a312c22636c69656e745f6d6573736167655f6964223a22646d2d32222c2264657374696e6174696f6e5f6b696e64223a22646d222c2264657374696e6174696f6e5f726566223a2266323732336266346366656236313663356338306265633965366539373630323637306662323862383034363739313331646163313333303132656434323636222c227265706c795f746f5f6964223a6e756c6c2c227072696f72697479223a226e6f77222c226d656e74696f6e73223a5b5d2c22626f6479223a224532544a67615234775274706b62454132595179446568552f397259756446722b47752f6b45694c756c5a674738717a54755377744e782f52317058475249303845305356573057222c227365616c223a7b22616c67223a22626f78222c2273656e6465725f6b65795f6964223a226b5f30314d3846464741354e394e3741383334435a4631395a325041222c226e6f6e6365223a22573156554c59664a4e566148414d766c2b6465743846756a6f6a46636a734963222c22726563697069656e745f6b65795f6964223a226b5f30314d3846464741505853444357595230324536424e454a4541227d2c22726571756573745f66696e6765727072696e74223a2265336436396366343438626364613430663537306636306663383063376163663835663133666432383331613561383666336334633063643637636338316163222c227369676e6174757265223a226b664a45583653326f7550443066454f5a356f4b5571535937692b4e676c513665462b6a4865686c306d6f7931626950497579764e72505264446e54696757464d6d66715342377137534e734e4d54514974486243773d3d227d', '2026-11-27 21:45:19.301+00');
INSERT INTO mesh.message_queue VALUES ('01a21ef8-4ed2-16be-d63f-c1dcd4310ef6', '01a21ef8-28ba-83ee-a897-49977fa061e3', 'queue-2', 'queue', 'builds', '01a21ef8-28ba-83ee-a897-49977fa061e4', '\x7b2276223a312c22636c69656e745f6d6573736167655f6964223a2271756575652d32222c2264657374696e6174696f6e5f6b696e64223a227175657565222c2264657374696e6174696f6e5f726566223a226275696c6473222c227265706c795f746f5f6964223a6e756c6c2c227072696f72697479223a226e657874222c226d656e74696f6e73223a5b5d2c22626f6479223a2265794a745a584e7a5957646c496a6f696358566c645755674d694973496d316c644745694f6d353162477839222c227365616c223a7b22616c67223a226e6f6e65222c2273656e6465725f6b65795f6964223a226b5f30314d3846464741354e394e3741383334435a4631395a325041227d2c22726571756573745f66696e6765727072696e74223a2262613739346363616139643634636262613336653039373439666362373164353864653231646431623465663136646564306465353862343662366334376231222c227369676e6174757265223a22564d573849386e6c6933726d52484a72637a4b4e655563624c63552f45326f774241524c7269796f642f634a55626c43454559716566724a63414d2b57346d37703170466c354732743532674968356b52696f4a42773d3d227d', '2026-11-27 21:45:19.314+00');
INSERT INTO mesh.message_queue VALUES ('01a21ef8-4ed9-e0c8-469c-4b1e73683f9d', '01a21ef8-28ba-83ee-a897-49977fa061e3', 'dm-dave', 'dm', '07279ba588ed03f1a8a0c78ae4d93fb8a24ab848a36cdef012a8f44984148003', '01a21ef8-28ba-83ee-a897-49977fa061e4', '\x7b2276223a312c22636c69656e745f6d6573736167655f6964223a22646d2d64617665222c2264657374696e6174696f6e5f6b696e64223a22646d222c2264657374696e6174696f6e5f726566223a2230373237396261353838656430336631613861306337386165346439336662386132346162383438613336636465663031326138663434393834313438303033222c227265706c795f746f5f6964223a6e756c6c2c227072696f72697479223a226e657874222c226d656e74696f6e73223a5b5d2c22626f6479223a226f4a375563376d2f33496637464f55706156494c554c5974456b4b3041597830316548486331395854664542554d77752b433851786543596e6f38707749557039673d3d222c227365616c223a7b22616c67223a22626f78222c2273656e6465725f6b65795f6964223a226b5f30314d3846464741354e394e3741383334435a4631395a325041222c226e6f6e6365223a22337a73534c784d5a577349554a687468304c3279595059304d3970524c663541222c22726563697069656e745f6b65795f6964223a226b5f30314d3846464742514837413644584841424456385944333445227d2c22726571756573745f66696e6765727072696e74223a2237356533613365656166336265343534656261633934623466323338323461663336366466653064666233366532643033373937343466383636623035663862222c227369676e6174757265223a22596664754b6338374e73433633697663346e3576487951576e57766a446d2f722b4377666c4837686e6c6f613257343351454367323546666d4469485a515078487957766b562b314b67724b2f5251737833654e43413d3d227d', '2026-11-27 21:45:19.321+00');
INSERT INTO mesh.presence VALUES ('01M8FFGNPJJKNMC8V4Q71HDF2T', '01a21ef8-2d4b-4a48-e5e5-498d5141f2ff', '01a21ef8-28ba-83ee-a897-49977fa061e3', '01M8FFG9W5TCWS036FZNY3SM9J', '2026-11-27 21:45:21.362+00', '2026-11-27 21:46:21.362+00', '01M8FFGGH63VRJCVCET0MH2K3G');
INSERT INTO mesh.schema_migration VALUES (1, '2026-11-27 21:45:08.879551+00');
INSERT INTO mesh.schema_migration VALUES (2, '2026-11-27 21:45:09.106892+00');
INSERT INTO mesh.schema_migration VALUES (3, '2026-11-27 21:45:09.119931+00');
INSERT INTO mesh.schema_migration VALUES (4, '2026-11-27 21:45:09.131098+00');
INSERT INTO mesh.schema_migration VALUES (5, '2026-11-27 21:45:09.151136+00');
INSERT INTO mesh.topic VALUES ('01a21ef8-28ba-83ee-a897-49977fa061e3', 'all', 'topic', '01a21ef8-28ba-83ee-a897-49977fa061e4', '2026-11-27 21:45:09.562+00');
INSERT INTO mesh.topic VALUES ('01a21ef8-28ba-83ee-a897-49977fa061e3', 'deploys', 'topic', '01a21ef8-28ba-83ee-a897-49977fa061e4', '2026-11-27 21:45:16.473+00');
INSERT INTO mesh.topic VALUES ('01a21ef8-28ba-83ee-a897-49977fa061e3', 'builds', 'queue', '01a21ef8-28ba-83ee-a897-49977fa061e4', '2026-11-27 21:45:16.485+00');
INSERT INTO mesh.topic_message VALUES ('01a21ef8-43d6-2e1b-aeed-ebb283afad60', '01a21ef8-28ba-83ee-a897-49977fa061e3', 'topic-1', 'deploys', '01a21ef8-28ba-83ee-a897-49977fa061e4', '\x7b2276223a312c22636c69656e745f6d6573736167655f6964223a22746f7069632d31222c2264657374696e6174696f6e5f6b696e64223a22746f706963222c2264657374696e6174696f6e5f726566223a226465706c6f7973222c227265706c795f746f5f6964223a6e756c6c2c227072696f72697479223a226c6f77222c226d656e74696f6e73223a5b2266323732336266346366656236313663356338306265633965366539373630323637306662323862383034363739313331646163313333303132656434323636225d2c22626f6479223a2265794a745a584e7a5957646c496a6f696447397761574d674d534973496d316c644745694f6d353162477839222c227365616c223a7b22616c67223a226e6f6e65222c2273656e6465725f6b65795f6964223a226b5f30314d3846464741354e394e3741383334435a4631395a325041227d2c22726571756573745f66696e6765727072696e74223a2261316438353633653566356336636635633762636361653566333562386436613431636333663837353233336361623732366634383330326533386438643931222c227369676e6174757265223a2246433662307178477a704e4930636852535a4f3562385742564c455138676836556461484c6b426b6d7a364b632f653759414741684e396b634b6735796c725a796f704b6c6b527170346953536a4c522f37706e43413d3d227d', '2026-11-27 21:45:16.523+00');
INSERT INTO mesh.topic_message VALUES ('01a21ef8-4ec8-48ca-fd46-60c958ca3565', '01a21ef8-28ba-83ee-a897-49977fa061e3', 'topic-2', 'deploys', '01a21ef8-28ba-83ee-a897-49977fa061e4', '\x7b2276223a312c22636c69656e745f6d6573736167655f6964223a22746f7069632d32222c2264657374696e6174696f6e5f6b696e64223a22746f706963222c2264657374696e6174696f6e5f726566223a226465706c6f7973222c227265706c795f746f5f6964223a6e756c6c2c227072696f72697479223a226e657874222c226d656e74696f6e73223a5b5d2c22626f6479223a2265794a745a584e7a5957646c496a6f696447397761574d674d694973496d316c644745694f6d353162477839222c227365616c223a7b22616c67223a226e6f6e65222c2273656e6465725f6b65795f6964223a226b5f30314d3846464741354e394e3741383334435a4631395a325041227d2c22726571756573745f66696e6765727072696e74223a2232326236333466666337633764356362373632626565383937343761356633623035343433643539613034623366616438386533316361653339626630343730222c227369676e6174757265223a2275714730516934345a79565a547a4b524d46544178654f7668576148654f707a6934694f56347a49635952446159546e393433495a75434b6a694f6730676a4275346c42594f636d58687359513537524663533341773d3d227d', '2026-11-27 21:45:19.306+00');
INSERT INTO mesh.topic_message VALUES ('01a21ef8-4ecf-d8dc-fe06-ba5e896eafde', '01a21ef8-28ba-83ee-a897-49977fa061e3', 'topic-3', 'deploys', '01a21ef8-28ba-83ee-a897-49977fa061e4', '\x7b2276223a312c22636c69656e745f6d6573736167655f6964223a22746f7069632d33222c2264657374696e6174696f6e5f6b696e64223a22746f706963222c2264657374696e6174696f6e5f726566223a226465706c6f7973222c227265706c795f746f5f6964223a6e756c6c2c227072696f72697479223a226e657874222c226d656e74696f6e73223a5b2266323732336266346366656236313663356338306265633965366539373630323637306662323862383034363739313331646163313333303132656434323636222c2234616330663463333166346330616265646233623635373939363433383838323837663133656531666264333365316231376136326531623734396131653737225d2c22626f6479223a2265794a745a584e7a5957646c496a6f696447397761574d674d794973496d316c644745694f6d353162477839222c227365616c223a7b22616c67223a226e6f6e65222c2273656e6465725f6b65795f6964223a226b5f30314d3846464741354e394e3741383334435a4631395a325041227d2c22726571756573745f66696e6765727072696e74223a2262336632613136383934363339323166323831633030623132363132313137396365633431373162663366643566643962663336383939666631633939393461222c227369676e6174757265223a224365425471626d664f47497a4365616b7133765a576c6a7358344f57766a6f4b2b362b627572454d522b5a4f51567271682b6279535774376f69492b7a676d6f437951384e3630734a3041777a45557033546c3244513d3d227d', '2026-11-27 21:45:19.311+00');
INSERT INTO mesh.topic_message VALUES ('01a21ef8-5443-694b-de99-c97a25f23028', '01a21ef8-28ba-83ee-a897-49977fa061e3', 'inflight-1', 'deploys', '01a21ef8-28ba-83ee-a897-49977fa061e4', '\x7b2276223a312c22636c69656e745f6d6573736167655f6964223a22696e666c696768742d31222c2264657374696e6174696f6e5f6b696e64223a22746f706963222c2264657374696e6174696f6e5f726566223a226465706c6f7973222c227265706c795f746f5f6964223a6e756c6c2c227072696f72697479223a226e657874222c226d656e74696f6e73223a5b5d2c22626f6479223a2265794a745a584e7a5957646c496a6f696157356d62476c6e614851674d534973496d316c644745694f6d353162477839222c227365616c223a7b22616c67223a226e6f6e65222c2273656e6465725f6b65795f6964223a226b5f30314d3846464741354e394e3741383334435a4631395a325041227d2c22726571756573745f66696e6765727072696e74223a2263623438313131633866356532613762306634633639616261396635383561383337373161383332373737336634366633313736346265326232306464623533222c227369676e6174757265223a2232422f3471732b7752526f657a703571624761364553422f354f32793753524d423266323946663165474f6f632f624e714b374559336f39646462322b4c456b52725967617742433437584b6e7a35563753645a43413d3d227d', '2026-11-27 21:45:20.707+00');
INSERT INTO mesh.topic_subscription VALUES ('01a21ef8-28ba-83ee-a897-49977fa061e3', 'all', '01a21ef8-28ba-83ee-a897-49977fa061e4', '2026-11-27 21:45:09.562+00');
INSERT INTO mesh.topic_subscription VALUES ('01a21ef8-28ba-83ee-a897-49977fa061e3', 'all', '01a21ef8-2ae2-59e2-fb16-d04cefdbecfe', '2026-11-27 21:45:10.114+00');
INSERT INTO mesh.topic_subscription VALUES ('01a21ef8-28ba-83ee-a897-49977fa061e3', 'all', '01a21ef8-2d4b-4a48-e5e5-498d5141f2ff', '2026-11-27 21:45:10.731+00');
INSERT INTO mesh.topic_subscription VALUES ('01a21ef8-28ba-83ee-a897-49977fa061e3', 'all', '01a21ef8-2ef8-21ab-994a-3a011488deec', '2026-11-27 21:45:11.16+00');
INSERT INTO mesh.topic_subscription VALUES ('01a21ef8-28ba-83ee-a897-49977fa061e3', 'all', '01a21ef8-43af-3acd-b54d-5de72f06fdb5', '2026-11-27 21:45:16.463+00');
INSERT INTO mesh.topic_subscription VALUES ('01a21ef8-28ba-83ee-a897-49977fa061e3', 'deploys', '01a21ef8-2ae2-59e2-fb16-d04cefdbecfe', '2026-11-27 21:45:16.489+00');
INSERT INTO mesh.topic_subscription VALUES ('01a21ef8-28ba-83ee-a897-49977fa061e3', 'builds', '01a21ef8-2ae2-59e2-fb16-d04cefdbecfe', '2026-11-27 21:45:16.492+00');
SELECT pg_catalog.setval('mesh.audit_event_id_seq', 6, true);
SELECT pg_catalog.setval('mesh.delivery_queue_delivery_id_seq', 12, true);
SELECT pg_catalog.setval('mesh.message_history_history_id_seq', 16, true);
ALTER TABLE ONLY mesh.audit_event
    ADD CONSTRAINT audit_event_pkey PRIMARY KEY (id);
ALTER TABLE ONLY mesh.client_message_dedupe
    ADD CONSTRAINT client_message_dedupe_pkey PRIMARY KEY (mesh_id, sender_member_id, client_message_id);
ALTER TABLE ONLY mesh.delivery_queue
    ADD CONSTRAINT delivery_queue_pkey PRIMARY KEY (delivery_id);
ALTER TABLE ONLY mesh.invite
    ADD CONSTRAINT invite_pkey PRIMARY KEY (id);
ALTER TABLE ONLY mesh.member_key
    ADD CONSTRAINT member_key_pkey PRIMARY KEY (mesh_id, ed25519_pubkey);
ALTER TABLE ONLY mesh.member
    ADD CONSTRAINT member_pkey PRIMARY KEY (id);
ALTER TABLE ONLY mesh.mention_index
    ADD CONSTRAINT mention_index_pkey PRIMARY KEY (mesh_id, mentioned_member_id, broker_message_id);
ALTER TABLE ONLY mesh.mesh
    ADD CONSTRAINT mesh_pkey PRIMARY KEY (id);
ALTER TABLE ONLY mesh.mesh
    ADD CONSTRAINT mesh_slug_key UNIQUE (slug);
ALTER TABLE ONLY mesh.message_history
    ADD CONSTRAINT message_history_pkey PRIMARY KEY (history_id);
ALTER TABLE ONLY mesh.message_queue
    ADD CONSTRAINT message_queue_pkey PRIMARY KEY (id);
ALTER TABLE ONLY mesh.message_tombstone
    ADD CONSTRAINT message_tombstone_pkey PRIMARY KEY (broker_message_id);
ALTER TABLE ONLY mesh.presence
    ADD CONSTRAINT presence_pkey PRIMARY KEY (connection_id);
ALTER TABLE ONLY mesh.schema_migration
    ADD CONSTRAINT schema_migration_pkey PRIMARY KEY (version);
ALTER TABLE ONLY mesh.topic_message
    ADD CONSTRAINT topic_message_pkey PRIMARY KEY (id);
ALTER TABLE ONLY mesh.topic
    ADD CONSTRAINT topic_pkey PRIMARY KEY (mesh_id, name);
ALTER TABLE ONLY mesh.topic_subscription
    ADD CONSTRAINT topic_subscription_pkey PRIMARY KEY (mesh_id, topic, member_id);
CREATE INDEX audit_event_mesh ON mesh.audit_event USING btree (mesh_id, id);
CREATE INDEX client_message_dedupe_expiry ON mesh.client_message_dedupe USING btree (expires_at) WHERE (expires_at IS NOT NULL);
CREATE INDEX delivery_queue_due ON mesh.delivery_queue USING btree (recipient_member_id, priority, delivery_id);
CREATE INDEX delivery_queue_message ON mesh.delivery_queue USING btree (broker_message_id);
CREATE INDEX delivery_queue_taken ON mesh.delivery_queue USING btree (recipient_member_id) WHERE (queue IS NOT NULL);
CREATE INDEX delivery_queue_waiting ON mesh.delivery_queue USING btree (mesh_id, queue, priority, delivery_id) WHERE (recipient_member_id IS NULL);
CREATE INDEX invite_mesh ON mesh.invite USING btree (mesh_id);
CREATE INDEX member_ephemeral ON mesh.member USING btree (created_at) WHERE (ephemeral AND (status = 'active'::text));
CREATE INDEX member_key_member ON mesh.member_key USING btree (member_id, mesh_id);
CREATE INDEX member_mesh ON mesh.member USING btree (mesh_id, id);
CREATE UNIQUE INDEX member_name ON mesh.member USING btree (lower(name), mesh_id);
CREATE INDEX mention_index_message ON mesh.mention_index USING btree (broker_message_id);
CREATE INDEX message_history_message ON mesh.message_history USING btree (broker_message_id);
CREATE INDEX presence_broker ON mesh.presence USING btree (broker_id);
CREATE INDEX presence_lease ON mesh.presence USING btree (lease_until);
CREATE INDEX presence_member ON mesh.presence USING btree (member_id);
CREATE INDEX presence_mesh ON mesh.presence USING btree (mesh_id, lease_until);
CREATE INDEX topic_subscription_member ON mesh.topic_subscription USING btree (member_id);
CREATE INDEX topic_subscription_of ON mesh.topic_subscription USING btree (member_id, mesh_id);
ALTER TABLE ONLY mesh.client_message_dedupe
    ADD CONSTRAINT client_message_dedupe_mesh_id_fkey FOREIGN KEY (mesh_id) REFERENCES mesh.mesh(id) ON DELETE CASCADE;
ALTER TABLE ONLY mesh.invite
    ADD CONSTRAINT invite_mesh_id_fkey FOREIGN KEY (mesh_id) REFERENCES mesh.mesh(id) ON DELETE CASCADE;
ALTER TABLE ONLY mesh.member_key
    ADD CONSTRAINT member_key_member_id_fkey FOREIGN KEY (member_id) REFERENCES mesh.member(id) ON DELETE CASCADE;
ALTER TABLE ONLY mesh.member
    ADD CONSTRAINT member_mesh_id_fkey FOREIGN KEY (mesh_id) REFERENCES mesh.mesh(id) ON DELETE CASCADE;
ALTER TABLE ONLY mesh.topic
    ADD CONSTRAINT topic_mesh_id_fkey FOREIGN KEY (mesh_id) REFERENCES mesh.mesh(id) ON DELETE CASCADE;
ALTER TABLE ONLY mesh.topic_subscription
    ADD CONSTRAINT topic_subscription_member_id_fkey FOREIGN KEY (member_id) REFERENCES mesh.member(id) ON DELETE CASCADE;
