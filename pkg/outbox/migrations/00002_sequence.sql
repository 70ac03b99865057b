-- +goose Up
-- Numbers, order and completeness. The previous release inserts without subject
-- and publishes without a number, which the new columns allow.
ALTER TABLE outbox
    ADD COLUMN subject     text    NOT NULL DEFAULT '',
    ADD COLUMN seq         bigint,                      -- on its topic; given by the relay before it publishes
    ADD COLUMN republished integer NOT NULL DEFAULT 0;  -- how often, because a consumer missed it

-- The order of the queue is that of an expression, so that this index alone can
-- give it: with the primary key at hand, the planner may walk through all that
-- was published before, when its statistics are those of another hour.
CREATE INDEX outbox_queue ON outbox ((id + 0)) WHERE published_at IS NULL;
DROP INDEX outbox_unpublished;

CREATE UNIQUE INDEX outbox_seq ON outbox (topic, seq) WHERE seq IS NOT NULL;
CREATE INDEX outbox_subject ON outbox (topic, subject, id) WHERE published_at IS NULL AND subject <> '';

-- The last number given on each topic.
CREATE TABLE outbox_heads (
    topic text   PRIMARY KEY,
    seq   bigint NOT NULL
);

-- What was numbered, by the hour in which the event's id was made.
CREATE TABLE outbox_tallies (
    topic    text    NOT NULL,
    hour     bigint  NOT NULL, -- since 1970, in UTC
    count    bigint  NOT NULL,
    sum      numeric NOT NULL, -- of 56-bit hashes of the ids
    last_seq bigint  NOT NULL,
    PRIMARY KEY (topic, hour)
);
