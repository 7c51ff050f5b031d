-- The feed: one order over the events of all sessions. A row's `position` is its place in it; within a lane, positions
-- are in the order of commit. SQLite has one writer, and so one lane. The newest row is never deleted, so a position is
-- never used twice.
CREATE TABLE event_batches_with_position (
    position INTEGER NOT NULL PRIMARY KEY,
    lane INTEGER NOT NULL,
    key TEXT NOT NULL,
    first_seq BIGINT NOT NULL,
    last_seq BIGINT NOT NULL,
    bytes BIGINT NOT NULL,
    -- Empty where a deleted session's events were: one such row stands for all of them.
    payload TEXT NOT NULL,
    UNIQUE (key, last_seq)
);
INSERT INTO event_batches_with_position (lane, key, first_seq, last_seq, bytes, payload)
    SELECT 0, key, first_seq, last_seq, bytes, payload FROM event_batches ORDER BY rowid;
DROP TABLE event_batches;
ALTER TABLE event_batches_with_position RENAME TO event_batches;

CREATE TABLE feed_lanes (
    lane INTEGER NOT NULL PRIMARY KEY
);
INSERT INTO feed_lanes (lane) VALUES (0);

-- Tells a cursor of this database from one of another.
CREATE TABLE feed_ids (
    id INTEGER NOT NULL PRIMARY KEY
);
INSERT INTO feed_ids (id) VALUES (abs(random()) % 2147483647);

-- Whose session the key had last, once it has none: who may still see that it was deleted.
ALTER TABLE logs ADD COLUMN last_owner TEXT;
