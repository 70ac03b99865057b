-- +goose Up
-- The audit log is its own consumed-event records. The previous release reads them
-- under the old name.
ALTER VIEW receipts RENAME TO consumed_events;
CREATE VIEW receipts AS SELECT topic, producer, seq, event_id FROM consumed_events;
