-- +goose NO TRANSACTION
-- +goose Up
-- The epoch of the producer's number; the previous release leaves it ''.
SET lock_timeout = '2500ms'; -- Writers wait behind an ALTER TABLE that waits for a backup.
ALTER TABLE events ADD COLUMN IF NOT EXISTS producer_epoch text NOT NULL DEFAULT '';
SET lock_timeout = 0;
DROP INDEX CONCURRENTLY IF EXISTS events_producer_epoch_seq; -- an earlier attempt may have left it invalid
CREATE INDEX CONCURRENTLY events_producer_epoch_seq ON events (producer, producer_epoch, producer_seq) WHERE producer_seq > 0;
DROP INDEX CONCURRENTLY IF EXISTS events_producer_seq;

SET lock_timeout = '2500ms';
-- More numbers of events in the log: a producer whose database was restored gives an
-- event another number. Entries of the log do not change.
CREATE TABLE IF NOT EXISTS event_numbers (
    producer text   NOT NULL,
    epoch    text   NOT NULL,
    seq      bigint NOT NULL,
    event_id uuid   NOT NULL,
    PRIMARY KEY (producer, epoch, seq, event_id)
);

CREATE INDEX IF NOT EXISTS event_numbers_event_id ON event_numbers (event_id);

CREATE OR REPLACE VIEW consumed_events AS
SELECT 'audit-events'::text AS topic, producer, producer_seq AS seq, id AS event_id, producer_epoch AS epoch
FROM events
WHERE producer_seq > 0
UNION ALL
SELECT 'audit-events'::text, n.producer, n.seq, n.event_id, n.epoch
FROM event_numbers n
WHERE EXISTS (SELECT FROM events e WHERE e.id = n.event_id)
UNION ALL
SELECT DISTINCT d.stream, d.producer, d.producer_seq, d.event_id, d.producer_epoch
FROM dead_letters d
WHERE d.producer_seq > 0 AND NOT EXISTS (SELECT FROM events e WHERE e.id = d.event_id);
