-- True once the log holds nothing of the turn that may be pruned: what retention has to look at is in the index alone.
-- A steered text has no progress of its own.
ALTER TABLE turns ADD COLUMN pruned BOOLEAN NOT NULL DEFAULT FALSE;
CREATE INDEX turns_to_prune ON turns (finished_at)
    WHERE finished_at IS NOT NULL AND steers IS NULL AND NOT pruned;

-- Archived sessions, the one that was touched longest ago first.
CREATE INDEX sessions_archived ON sessions (updated_at) WHERE is_current AND archived;
