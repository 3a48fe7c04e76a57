-- ticket_key_make: keep a key, unless there is one.
INSERT INTO mesh.blob_ticket_key (one, key) VALUES (1, $1) ON CONFLICT DO NOTHING;

-- ticket_key: the key of tickets.
SELECT key FROM mesh.blob_ticket_key;

-- blob_mesh_lock: let one upload of a mesh begin at a time.
SELECT id FROM mesh.mesh WHERE id = $1 FOR NO KEY UPDATE;

-- blob_of_content: the blob of a member with this content.
SELECT id, mesh_id, owner_member_id, size, sha256, received, complete, attached, persistent FROM mesh.blob
WHERE mesh_id = $1 AND owner_member_id = $2 AND sha256 = $3 AND size = $4;

-- blob: one blob.
SELECT id, mesh_id, owner_member_id, size, sha256, received, complete, attached, persistent FROM mesh.blob
WHERE id = $1 AND mesh_id = $2;

-- blob_usage: the bytes of a mesh and of one member, and the member's blobs and unfinished uploads.
SELECT coalesce(sum(size), 0)::bigint, coalesce(sum(size) FILTER (WHERE owner_member_id = $2), 0)::bigint,
       count(*) FILTER (WHERE owner_member_id = $2),
       count(*) FILTER (WHERE owner_member_id = $2 AND NOT complete)
FROM mesh.blob WHERE mesh_id = $1;

-- blob_insert: a new upload.
INSERT INTO mesh.blob (id, mesh_id, owner_member_id, size, sha256, touched_lived) VALUES ($1, $2, $3, $4, $5, $6);

-- blob_again: begin a known upload again. A complete blob waits for its next announcement.
UPDATE mesh.blob SET touched_lived = $2, attached = false WHERE id = $1;

-- blob_progress: more bytes of an upload are stored. Its owner has to be an active member.
UPDATE mesh.blob AS b SET received = $3, touched_lived = $4
WHERE b.id = $1 AND b.received = $2 AND NOT b.complete
  AND EXISTS (SELECT 1 FROM mesh.member AS m WHERE m.id = b.owner_member_id AND m.status = 'active')
RETURNING b.id;

-- blob_chunk_add: the bytes of an upload from an offset on.
INSERT INTO mesh.blob_chunk (blob_id, begins, data) VALUES ($1, $2, $3);

-- blob_chunk: the chunk that holds the byte at an offset.
SELECT begins, data FROM mesh.blob_chunk WHERE blob_id = $1 AND begins <= $2 ORDER BY begins DESC LIMIT 1;

-- blob_chunks_delete: delete the bytes of an upload.
DELETE FROM mesh.blob_chunk WHERE blob_id = $1;

-- blob_restart: an upload begins from its first byte.
UPDATE mesh.blob SET received = 0 WHERE id = $1 AND NOT complete RETURNING id;

-- blob_complete: an upload has all its bytes, and their hash is right. Its owner has to be an active member.
UPDATE mesh.blob AS b SET complete = true, touched_lived = $2
WHERE b.id = $1 AND NOT b.complete AND b.received = b.size
  AND EXISTS (SELECT 1 FROM mesh.member AS m WHERE m.id = b.owner_member_id AND m.status = 'active');

-- blob_announcement: where a message of a member went.
SELECT destination_kind, destination_ref FROM mesh.client_message_dedupe
WHERE mesh_id = $1 AND sender_member_id = $2 AND client_message_id = $3;

-- blob_attach: a blob was announced.
UPDATE mesh.blob SET attached = true, persistent = persistent OR $2 WHERE id = $1;

-- blob_for_member: note the recipient of a direct message.
INSERT INTO mesh.blob_recipient (blob_id, member_id)
SELECT $1, k.member_id FROM mesh.member_key AS k WHERE k.mesh_id = $2 AND k.ed25519_pubkey = $3
ON CONFLICT DO NOTHING;

-- blob_for_subscribers: note the subscribers of a topic, without the sender.
INSERT INTO mesh.blob_recipient (blob_id, member_id)
SELECT $1, s.member_id FROM mesh.topic_subscription AS s
WHERE s.mesh_id = $2 AND s.topic = $3 AND s.member_id <> $4
ON CONFLICT DO NOTHING;

-- blob_fetched: note that a member has fetched a blob; the first time counts.
INSERT INTO mesh.blob_recipient AS r (blob_id, member_id, fetched_lived) VALUES ($1, $2, $3)
ON CONFLICT (blob_id, member_id) DO UPDATE SET fetched_lived = coalesce(r.fetched_lived, excluded.fetched_lived);

-- blob_delete: delete one blob.
DELETE FROM mesh.blob WHERE id = $1;

-- blobs_over: delete a batch of unfinished uploads without progress since a time, of blobs from before another time,
-- and of blobs that every recipient had fetched at the first time.
DELETE FROM mesh.blob WHERE id IN (
  SELECT b.id FROM mesh.blob AS b
  WHERE (NOT b.complete AND b.touched_lived <= $1)
     OR (b.complete AND NOT b.persistent AND (
       b.touched_lived <= $2
       OR (b.attached
           AND EXISTS (SELECT 1 FROM mesh.blob_recipient AS r
                       WHERE r.blob_id = b.id AND r.fetched_lived IS NOT NULL)
           AND NOT EXISTS (
             SELECT 1 FROM mesh.blob_recipient AS r WHERE r.blob_id = b.id AND (
               r.fetched_lived > $1
               OR (r.fetched_lived IS NULL
                   AND EXISTS (SELECT 1 FROM mesh.member AS m
                               WHERE m.id = r.member_id AND m.status = 'active')))))))
  LIMIT $3)
RETURNING id;

-- blobs_stored: the bytes and the number of the blobs of every mesh.
SELECT mesh_id, sum(size)::bigint, count(*), count(*) FILTER (WHERE NOT complete) FROM mesh.blob GROUP BY mesh_id;

-- blobs_after: blobs in the order of their ids, each with the bytes that are stored.
SELECT b.id, b.size, b.received, b.complete,
       (SELECT coalesce(sum(octet_length(c.data)), 0)::bigint FROM mesh.blob_chunk AS c WHERE c.blob_id = b.id)
FROM mesh.blob AS b WHERE b.id > $1 ORDER BY b.id LIMIT $2;
