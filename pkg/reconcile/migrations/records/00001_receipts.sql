-- +goose Up
-- One row for each event that needs nothing more from this service.
CREATE TABLE receipts (
    topic      text        NOT NULL,
    producer   text        NOT NULL,
    seq        bigint      NOT NULL,
    event_id   uuid        NOT NULL,
    settled_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (topic, producer, seq, event_id)
);

CREATE INDEX receipts_event_id ON receipts (event_id);
