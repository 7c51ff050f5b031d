ALTER TABLE logs DROP COLUMN last_owner;
DROP TABLE feed_ids;
DROP TABLE feed_lanes;
DROP INDEX event_batches_by_position;
DELETE FROM event_batches WHERE payload = '';
ALTER TABLE event_batches DROP COLUMN position;
ALTER TABLE event_batches DROP COLUMN lane;
