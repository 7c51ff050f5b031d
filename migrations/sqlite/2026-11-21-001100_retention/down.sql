DROP INDEX sessions_archived;
DROP INDEX turns_to_prune;
ALTER TABLE turns DROP COLUMN pruned;
