-- ticket_key_make: keep a key, unless there is one.
INSERT INTO blob_ticket_key (one, key) VALUES (1, ?) ON CONFLICT DO NOTHING;

-- ticket_key: the key of tickets.
SELECT key FROM blob_ticket_key;

-- blob_of_content: the blob of a member with this content.
SELECT id, mesh_id, owner_member_id, size, sha256, received, complete, attached, persistent FROM blob
WHERE mesh_id = ? AND owner_member_id = ? AND sha256 = ? AND size = ?;

-- blob: one blob.
SELECT id, mesh_id, owner_member_id, size, sha256, received, complete, attached, persistent FROM blob
WHERE id = ? AND mesh_id = ?;

-- blob_usage: the bytes of a mesh and of one member, and the member's blobs and unfinished uploads.
SELECT coalesce(sum(size), 0), coalesce(sum(size) FILTER (WHERE owner_member_id = ?2), 0),
       count(*) FILTER (WHERE owner_member_id = ?2),
       count(*) FILTER (WHERE owner_member_id = ?2 AND NOT complete)
FROM blob WHERE mesh_id = ?1;

-- blob_insert: a new upload.
INSERT INTO blob (id, mesh_id, owner_member_id, size, sha256, touched_lived) VALUES (?, ?, ?, ?, ?, ?);

-- blob_again: begin a known upload again. A complete blob waits for its next announcement.
UPDATE blob SET touched_lived = ?2, attached = 0 WHERE id = ?1;

-- blob_progress: more bytes of an upload are on the disk. Its owner has to be an active member.
UPDATE blob SET received = ?2, touched_lived = ?3
WHERE id = ?1 AND NOT complete
  AND EXISTS (SELECT 1 FROM member AS m WHERE m.id = blob.owner_member_id AND m.status = 'active');

-- blob_restart: an upload begins from its first byte.
UPDATE blob SET received = 0 WHERE id = ? AND NOT complete;

-- blob_complete: an upload has all its bytes, and their hash is right. Its owner has to be an active member.
UPDATE blob SET complete = 1, received = size, touched_lived = ?2
WHERE id = ?1 AND NOT complete
  AND EXISTS (SELECT 1 FROM member AS m WHERE m.id = blob.owner_member_id AND m.status = 'active');

-- blob_announcement: where a message of a member went.
SELECT destination_kind, destination_ref FROM client_message_dedupe
WHERE mesh_id = ? AND sender_member_id = ? AND client_message_id = ?;

-- blob_attach: a blob was announced.
UPDATE blob SET attached = 1, persistent = max(persistent, ?2) WHERE id = ?1;

-- blob_for_member: note the recipient of a direct message.
INSERT INTO blob_recipient (blob_id, member_id)
SELECT ?1, k.member_id FROM member_key AS k WHERE k.mesh_id = ?2 AND k.ed25519_pubkey = ?3
ON CONFLICT DO NOTHING;

-- blob_for_subscribers: note the subscribers of a topic, without the sender.
INSERT INTO blob_recipient (blob_id, member_id)
SELECT ?1, s.member_id FROM topic_subscription AS s WHERE s.mesh_id = ?2 AND s.topic = ?3 AND s.member_id <> ?4
ON CONFLICT DO NOTHING;

-- blob_fetched: note that a member has fetched a blob; the first time counts.
INSERT INTO blob_recipient (blob_id, member_id, fetched_lived) VALUES (?1, ?2, ?3)
ON CONFLICT (blob_id, member_id) DO UPDATE SET fetched_lived = coalesce(fetched_lived, excluded.fetched_lived);

-- blob_delete: delete one blob.
DELETE FROM blob WHERE id = ?;

-- blobs_over: delete a batch of unfinished uploads without progress since a time, of blobs from before another time,
-- and of blobs that every recipient had fetched at the first time.
DELETE FROM blob WHERE id IN (
  SELECT b.id FROM blob AS b
  WHERE (NOT b.complete AND b.touched_lived <= ?1)
     OR (b.complete AND NOT b.persistent AND (
       b.touched_lived <= ?2
       OR (b.attached
           AND EXISTS (SELECT 1 FROM blob_recipient AS r WHERE r.blob_id = b.id AND r.fetched_lived IS NOT NULL)
           AND NOT EXISTS (
             SELECT 1 FROM blob_recipient AS r WHERE r.blob_id = b.id AND (
               r.fetched_lived > ?1
               OR (r.fetched_lived IS NULL
                   AND EXISTS (SELECT 1 FROM member AS m WHERE m.id = r.member_id AND m.status = 'active')))))))
  LIMIT ?3)
RETURNING id;

-- blobs_stored: the bytes and the number of the blobs of every mesh.
SELECT mesh_id, sum(size), count(*), count(*) FILTER (WHERE NOT complete) FROM blob GROUP BY mesh_id;

-- blobs_after: blobs in the order of their ids.
SELECT id, size, received, complete FROM blob WHERE id > ? ORDER BY id LIMIT ?;
