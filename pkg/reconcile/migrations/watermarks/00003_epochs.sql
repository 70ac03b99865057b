-- +goose Up
-- Watermarks and checksums by epoch. The previous release keeps using
-- published_watermarks and hourly_checksums beside them; a later release drops those.
CREATE TABLE epoch_watermarks (
    topic         text        NOT NULL,
    producer      text        NOT NULL,
    epoch         text        NOT NULL, -- '' before producers had epochs
    first_seq     bigint      NOT NULL, -- no lower number needs a record: none was offered, or it was purged
    held_seq      bigint      NOT NULL, -- the lowest number that the producer can republish
    published_seq bigint      NOT NULL, -- up to which every event was published
    end_seq       bigint      NOT NULL, -- up to which every number needs a record
    consumed_seq  bigint      NOT NULL, -- up to which every number has a record or was accepted as missing
    reported_at   timestamptz NOT NULL, -- when the producer wrote the watermark, by its clock
    changed_at    timestamptz NOT NULL DEFAULT now(), -- when the watermark last changed, by this database's clock
    PRIMARY KEY (topic, producer, epoch)
);

INSERT INTO epoch_watermarks (topic, producer, epoch, first_seq, held_seq, published_seq, end_seq, consumed_seq, reported_at)
SELECT topic, producer, '', 1, 0, published_seq, published_seq, consumed_seq, reported_at FROM published_watermarks;

CREATE TABLE epoch_checksums (
    topic    text    NOT NULL,
    producer text    NOT NULL,
    epoch    text    NOT NULL,
    hour     bigint  NOT NULL, -- since 1970, in UTC
    count    bigint  NOT NULL,
    sum      numeric NOT NULL, -- of 56-bit hashes of the ids
    last_seq bigint  NOT NULL,
    matched  boolean NOT NULL DEFAULT false, -- the records of the hour had this count and sum, or the difference was accepted
    asked_at timestamptz,                    -- when the producer last had nothing to add to the records
    accepted_count bigint,  -- what an operator accepted as the records of the hour
    accepted_sum   numeric,
    PRIMARY KEY (topic, producer, epoch, hour)
);

INSERT INTO epoch_checksums (topic, producer, epoch, hour, count, sum, last_seq, matched)
SELECT topic, producer, '', hour, count, sum, last_seq, matched FROM hourly_checksums;

-- What an operator has accepted as missing for good.
CREATE TABLE accepted_gaps (
    topic       text        NOT NULL,
    producer    text        NOT NULL,
    epoch       text        NOT NULL,
    first_seq   bigint      NOT NULL,
    last_seq    bigint      NOT NULL,
    reason      text        NOT NULL,
    accepted_by text        NOT NULL,
    accepted_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (topic, producer, epoch, first_seq, last_seq)
);

-- A new generation starts when this database was found to be an older copy of itself.
CREATE TABLE consumer_generations (
    topic      text        NOT NULL,
    generation text        NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (topic, generation)
);

-- In which incarnation of the database it was compared with what is known of it
-- elsewhere. The file changes when the table is restored into a running database.
CREATE TABLE database_checks (
    topic       text PRIMARY KEY,
    incarnation text NOT NULL,
    file        oid  NOT NULL,
    checked_at  timestamptz NOT NULL DEFAULT now()
);

CREATE VIEW checked_databases AS
SELECT topic, incarnation FROM database_checks WHERE file = pg_relation_filenode('database_checks'::regclass);
