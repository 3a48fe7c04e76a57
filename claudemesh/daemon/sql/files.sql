-- insert: a file whose encrypted copy is in the spool.
INSERT INTO shared (file_id, client_message_id, request_fingerprint, request, persistent, name, media_type, size, sha256,
                    blob_size, blob_sha256, chunk_bytes, key, state, created_at, is_text)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'uploading', ?, ?);

-- by_id: a file by its id.
SELECT * FROM shared WHERE file_id = ?;

-- by_send: a file by the client_message_id of its announcement.
SELECT * FROM shared WHERE client_message_id = ?;

-- ids: the client_message_ids of all announcements.
SELECT client_message_id FROM shared;

-- open: files that are not shared yet, oldest first.
SELECT * FROM shared INDEXED BY shared_open WHERE state IN ('uploading', 'announcing', 'attaching') ORDER BY number;

-- before: files that were shared before one of them, newest first.
SELECT * FROM shared WHERE number < ? AND NOT is_text ORDER BY number DESC LIMIT ?;

-- before_all: the same with long texts.
SELECT * FROM shared WHERE number < ? ORDER BY number DESC LIMIT ?;

-- move: change the state of a file. The row must have the state before.
UPDATE shared SET state = ?, blob_id = ?, error = ?, key = iif(?, key, x'') WHERE file_id = ? AND state = ?;

-- note: write the cause of a wait, and the blob. The row must have the state before.
UPDATE shared SET blob_id = ?, error = ? WHERE file_id = ? AND state = ?;

-- settle: begin the time of rows that have come to their end since housekeeping last looked.
UPDATE shared SET settled_lived = ? WHERE rowid IN (
  SELECT rowid FROM shared INDEXED BY shared_settled WHERE settled_lived IS NULL
  AND state IN ('shared', 'failed', 'deleted') AND json_extract(request, '$.message') IS NOT NULL LIMIT ?);

-- drop_requests: drop the text and the fields of announcements that came to their end before a lived time. The
-- destination stays, as do id and fingerprint.
UPDATE shared SET request = json_object('to', json_extract(request, '$.to')) WHERE rowid IN (
  SELECT rowid FROM shared INDEXED BY shared_settled WHERE settled_lived < ?
  AND state IN ('shared', 'failed', 'deleted') AND json_extract(request, '$.message') IS NOT NULL LIMIT ?);

-- waiting: the number and the bytes of the files that are not shared yet, by state.
SELECT state, count(*), sum(blob_size) FROM shared INDEXED BY shared_open
WHERE state IN ('uploading', 'announcing', 'attaching') GROUP BY state;
