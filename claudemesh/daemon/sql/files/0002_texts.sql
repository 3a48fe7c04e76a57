-- Whether the file is the text of its message, which is too long to go with it.
ALTER TABLE shared ADD COLUMN is_text INTEGER NOT NULL DEFAULT 0;
