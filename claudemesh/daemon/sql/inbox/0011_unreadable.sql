-- A message whose body does not open under the right key is set aside: it stays with its envelope, and `unreadable`
-- holds the reason. Its key will not come, so it is not tried again.
ALTER TABLE inbox ADD COLUMN unreadable TEXT;

-- Messages without a text: those that wait for a key, and those that were set aside.
CREATE INDEX inbox_without_text ON inbox (seq) WHERE body IS NULL;
