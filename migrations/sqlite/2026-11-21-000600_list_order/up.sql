-- The place of a session in the list: the id of its first conversation, which a reset does not change. So nobody who
-- goes through the list page by page misses a session, or sees it twice, because it was reset meanwhile.
ALTER TABLE sessions ADD COLUMN list_id TEXT NOT NULL DEFAULT '';
UPDATE sessions SET list_id = (SELECT min(first.id) FROM sessions AS first WHERE first.key = sessions.key);
CREATE INDEX sessions_current_by_list_id ON sessions (list_id) WHERE is_current;
DROP INDEX sessions_current_by_id;
