-- +goose Up
-- The number that the producer gave the event; the previous release leaves it 0.
ALTER TABLE events ADD COLUMN producer_seq bigint NOT NULL DEFAULT 0;

CREATE INDEX events_producer_seq ON events (producer, producer_seq) WHERE producer_seq > 0;

-- The log is its own receipt: what is not in it, nor among the dead letters, is
-- missing.
CREATE VIEW receipts AS
SELECT 'audit-events'::text AS topic, producer, producer_seq AS seq, id AS event_id
FROM events
WHERE producer_seq > 0
UNION ALL
SELECT DISTINCT d.stream, d.producer, d.producer_seq, d.event_id
FROM dead_letters d
WHERE d.producer_seq > 0 AND NOT EXISTS (SELECT FROM events e WHERE e.id = d.event_id);
