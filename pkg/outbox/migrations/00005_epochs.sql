-- +goose Up
-- Epochs of the numbers. The previous release numbers rows of the current epoch without
-- knowing it: the number alone tells the epoch of a row.
CREATE TABLE outbox_epochs (
    topic      text        NOT NULL,
    epoch      text        NOT NULL, -- '' before there were epochs
    first_seq  bigint      NOT NULL,
    last_seq   bigint,               -- NULL while it is the current epoch
    known_seq  bigint,               -- the highest number that anybody knew when it was closed
    started_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (topic, epoch)
);
CREATE UNIQUE INDEX outbox_epochs_current ON outbox_epochs (topic) WHERE last_seq IS NULL;

INSERT INTO outbox_epochs (topic, epoch, first_seq) SELECT topic, '', 1 FROM outbox_sequences WHERE last_seq > 0;

-- The incarnation of the database in which last_seq was found to be the last number.
ALTER TABLE outbox_sequences ADD COLUMN incarnation text NOT NULL DEFAULT '';

-- The checksums by epoch. The previous release adds to outbox_hourly_checksums; those
-- of the epoch '' are the sum of both.
CREATE TABLE outbox_epoch_checksums (
    topic    text    NOT NULL,
    epoch    text    NOT NULL,
    hour     bigint  NOT NULL, -- since 1970, in UTC
    count    bigint  NOT NULL,
    sum      numeric NOT NULL, -- of 56-bit hashes of the ids
    last_seq bigint  NOT NULL,
    PRIMARY KEY (topic, epoch, hour)
);

-- What the consumers say they have consumed. Rows that one of them lacks are kept.
CREATE TABLE outbox_consumers (
    topic        text        NOT NULL,
    consumer     text        NOT NULL, -- the group
    watermark    jsonb       NOT NULL,
    forgotten_at timestamptz,          -- when an operator said that it is gone
    PRIMARY KEY (topic, consumer)
);

-- The progress of answering a group's republish requests.
CREATE TABLE outbox_answers (
    topic       text   NOT NULL,
    consumer    text   NOT NULL, -- the group
    answers     bigint NOT NULL DEFAULT 0, -- requests that were answered completely
    reached     bigint NOT NULL DEFAULT 0, -- the last number sent for the present request
    lowest      text   NOT NULL DEFAULT '', -- what the last request asked for first
    attempts    integer NOT NULL DEFAULT 0, -- answers in a row to requests for the same
    answered_at timestamptz,
    owner       text   NOT NULL DEFAULT '', -- the instance that answers the present request
    owned_until timestamptz,
    PRIMARY KEY (topic, consumer)
);
