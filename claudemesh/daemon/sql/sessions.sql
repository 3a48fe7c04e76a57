-- sessions: names of sessions, those of live ones with their ids.
SELECT name, session_id, client, client_version, client_session_id, cwd, pid, pid_started, reach FROM session;

-- save: write the session that has a name now.
INSERT INTO session (name, session_id, client, client_version, client_session_id, cwd, pid, pid_started, reach, used)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, (SELECT coalesce(max(used), 0) + 1 FROM session))
ON CONFLICT (name) DO UPDATE SET session_id = ?2, client = ?3, client_version = ?4, client_session_id = ?5, cwd = ?6,
  pid = ?7, pid_started = ?8, reach = ?9, used = excluded.used;

-- end: note that no session has a name any more.
UPDATE session SET session_id = NULL WHERE name = ?;

-- give_back: take messages for the host back from a session that has not shown them.
UPDATE inbox SET for_session = NULL
WHERE for_session = ? AND to_session IS NULL AND shown_at IS NULL AND acked_at IS NULL;

-- untell: the next session of a name was told of none of its messages.
UPDATE inbox SET told = 0 WHERE for_session = ? AND shown_at IS NULL AND acked_at IS NULL AND told = 1;

-- untell_besides: the same of messages that other sessions have.
DELETE FROM inbox_told WHERE session = ?;

-- give: give messages for the host to a session.
UPDATE inbox SET for_session = ? WHERE id = ? AND for_session IS NULL;

-- forget: delete the names that were used longest ago, beyond a number of them.
DELETE FROM session WHERE session_id IS NULL
  AND name NOT IN (SELECT name FROM session ORDER BY used DESC LIMIT ?) RETURNING name;
