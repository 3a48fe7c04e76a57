-- Whether the file is the text of its message, which was too long to come with it.
ALTER TABLE inbox_file ADD COLUMN is_text INTEGER NOT NULL DEFAULT 0;
