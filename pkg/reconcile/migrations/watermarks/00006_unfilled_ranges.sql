-- +goose Up
-- What stays missing although the producer has answered a request for it. It is requested
-- again at next_at.
CREATE TABLE unfilled_ranges (
    topic     text        NOT NULL,
    producer  text        NOT NULL,
    epoch     text        NOT NULL,
    first_seq bigint      NOT NULL,
    last_seq  bigint      NOT NULL,
    attempts  integer     NOT NULL, -- answers so far
    next_at   timestamptz NOT NULL,
    PRIMARY KEY (topic, producer, epoch, first_seq, last_seq)
);
