-- A row that waits for the key of its topic or queue names it. Its envelope holds the text until it is sealed.
ALTER TABLE outbox ADD COLUMN waiting_topic TEXT;

CREATE INDEX outbox_waiting_topic ON outbox (waiting_topic, priority) WHERE waiting_topic IS NOT NULL;
