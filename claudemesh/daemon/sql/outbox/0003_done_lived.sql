-- Done sends keep their payload for three days of host-lived time, whatever the wall clock says. `done_lived_ms` is
-- the lived time at which the row was done; NULL in rows of the older schema, until the next start gives them
-- the lived time of that moment.
ALTER TABLE outbox ADD COLUMN done_lived_ms INTEGER;

DROP INDEX outbox_done_payload;

CREATE INDEX outbox_done_payload ON outbox (done_lived_ms) WHERE status = 'done' AND payload <> x'';
