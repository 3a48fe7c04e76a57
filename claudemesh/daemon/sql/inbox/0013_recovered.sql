-- Whether the message was read back from the broker's history, after the inbox that had it was damaged. It is
-- acknowledged, and no stream shows it.
ALTER TABLE inbox ADD COLUMN recovered INTEGER NOT NULL DEFAULT 0;

CREATE INDEX inbox_recovered ON inbox (sender_member_id, client_message_id) WHERE recovered;
