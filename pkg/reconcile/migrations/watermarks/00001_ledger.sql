-- +goose Up
-- What producers say they have published.
CREATE TABLE ledgers (
    topic       text        NOT NULL,
    producer    text        NOT NULL,
    head        bigint      NOT NULL, -- the number up to which every event was published
    reported_at timestamptz NOT NULL,
    settled_to  bigint      NOT NULL DEFAULT 0, -- the number up to which every event has a receipt
    PRIMARY KEY (topic, producer)
);

CREATE TABLE ledger_hours (
    topic    text    NOT NULL,
    producer text    NOT NULL,
    hour     bigint  NOT NULL, -- since 1970, in UTC
    count    bigint  NOT NULL,
    sum      numeric NOT NULL, -- of 56-bit hashes of the ids
    last_seq bigint  NOT NULL,
    agrees   boolean NOT NULL DEFAULT false, -- the receipts of the hour had this count and sum
    PRIMARY KEY (topic, producer, hour)
);
