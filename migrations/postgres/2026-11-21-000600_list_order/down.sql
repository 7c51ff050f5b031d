CREATE INDEX sessions_current_by_id ON sessions (id) WHERE is_current;
DROP INDEX sessions_current_by_list_id;
ALTER TABLE sessions DROP COLUMN list_id;
