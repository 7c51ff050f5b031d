ALTER TABLE logs DROP COLUMN last_owner;
DROP TABLE feed_ids;
DROP TABLE feed_lanes;
CREATE TABLE event_batches_without_position (
    key TEXT NOT NULL,
    first_seq BIGINT NOT NULL,
    last_seq BIGINT NOT NULL,
    bytes BIGINT NOT NULL,
    payload TEXT NOT NULL,
    PRIMARY KEY (key, last_seq)
);
INSERT INTO event_batches_without_position (key, first_seq, last_seq, bytes, payload)
    SELECT key, first_seq, last_seq, bytes, payload FROM event_batches WHERE payload <> '' ORDER BY position;
DROP TABLE event_batches;
ALTER TABLE event_batches_without_position RENAME TO event_batches;
