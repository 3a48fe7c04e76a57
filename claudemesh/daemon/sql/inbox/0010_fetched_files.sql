-- The code of the last failed download of a file, and whether the broker knows that this member has the file.
ALTER TABLE inbox_file ADD COLUMN error TEXT;
ALTER TABLE inbox_file ADD COLUMN is_told INTEGER NOT NULL DEFAULT 0;

CREATE INDEX inbox_file_untold ON inbox_file (number) WHERE fetched_at IS NOT NULL AND NOT is_told;
