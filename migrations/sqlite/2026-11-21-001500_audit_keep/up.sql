-- Entries of the audit from before this moment (microseconds since 1970) may be removed: they are older than the operator
-- keeps them. All others are as append-only as ever.
CREATE TABLE audit_horizon (
    id INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    before BIGINT NOT NULL
);
INSERT INTO audit_horizon (id, before) VALUES (1, 0);
DROP TRIGGER audit_no_delete;
CREATE TRIGGER audit_no_delete BEFORE DELETE ON audit
WHEN OLD.at >= COALESCE((SELECT before FROM audit_horizon), 0)
BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END;
