-- A post or job that version 0.1.0 took and never sent waits for the key of its topic, so that it leaves sealed. A row
-- that was sent may have been accepted: it leaves as it is, and the broker answers with what it has or refuses it.
UPDATE outbox
SET waiting_topic = json_extract(CAST(payload AS TEXT), '$.destination_ref'), due_lived_ms = 4611686018427387904
WHERE status = 'pending' AND attempts = 0 AND first_sent_broker_ms IS NULL AND waiting_topic IS NULL
  AND CASE WHEN json_valid(CAST(payload AS TEXT)) THEN json_extract(CAST(payload AS TEXT), '$.seal.alg') = 'none' END;
