-- +goose Up
-- Consumed-event records. The previous release reads and writes through a view
-- with the old names.
ALTER TABLE receipts RENAME TO consumed_events;
ALTER TABLE consumed_events RENAME COLUMN settled_at TO consumed_at;
ALTER INDEX receipts_pkey RENAME TO consumed_events_pkey;
ALTER INDEX receipts_event_id RENAME TO consumed_events_event_id;
CREATE VIEW receipts AS SELECT topic, producer, seq, event_id, consumed_at AS settled_at FROM consumed_events;
