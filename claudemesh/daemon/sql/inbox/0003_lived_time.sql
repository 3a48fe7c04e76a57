-- Retention by the host-lived clock (runtime/lived.py): `lived_ms` is the lived time at which a message was stored,
-- or at which a pruned message's id was remembered. NULL in rows of the older schema, until the next start gives
-- them the lived time of that moment. `received_at` and `seen_at` are wall time, for showing.
ALTER TABLE inbox ADD COLUMN lived_ms INTEGER;

ALTER TABLE inbox_seen ADD COLUMN lived_ms INTEGER;

DROP INDEX inbox_seen_age;

CREATE INDEX inbox_lived ON inbox (lived_ms);

CREATE INDEX inbox_seen_lived ON inbox_seen (lived_ms);
