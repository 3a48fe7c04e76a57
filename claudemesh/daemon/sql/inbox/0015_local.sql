-- The fingerprint of the request of a message that this host has sent to itself, NULL for one that the broker has
-- delivered: a send that is repeated before its row is in the outbox is known by it.
ALTER TABLE inbox ADD COLUMN request_fingerprint BLOB;
