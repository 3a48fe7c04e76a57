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

-- move: change the state of a file. The row must have the state before.
UPDATE shared SET state = ?, blob_id = ?, error = ?, key = iif(?, key, x'') WHERE file_id = ? AND state = ?;

-- note: write the cause of a wait, and the blob. The row must have the state before.
UPDATE shared SET blob_id = ?, error = ? WHERE file_id = ? AND state = ?;
