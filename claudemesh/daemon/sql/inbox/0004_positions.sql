-- A number that is ahead of every seq given out; the file inbox_position holds it too.
CREATE TABLE inbox_positions (
  only INTEGER PRIMARY KEY CHECK (only = 1),
  reserved INTEGER NOT NULL
);
