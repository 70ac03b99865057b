-- +goose NO TRANSACTION
-- +goose Up
-- Records by epoch. The previous release writes those of the epoch ''.
SET lock_timeout = '2500ms'; -- Writers wait behind an ALTER TABLE that waits for a backup.
ALTER TABLE consumed_events ADD COLUMN IF NOT EXISTS epoch text NOT NULL DEFAULT '';
SET lock_timeout = 0;
DROP INDEX CONCURRENTLY IF EXISTS consumed_events_epoch;
CREATE UNIQUE INDEX CONCURRENTLY consumed_events_epoch ON consumed_events (topic, producer, epoch, seq, event_id);
SET lock_timeout = '2500ms';
ALTER TABLE consumed_events
    DROP CONSTRAINT consumed_events_pkey,
    ADD CONSTRAINT consumed_events_pkey PRIMARY KEY USING INDEX consumed_events_epoch;
