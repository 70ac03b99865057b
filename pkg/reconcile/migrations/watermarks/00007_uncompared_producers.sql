-- +goose Up
-- Producers that posted nothing while this database was checked. What they know of it is
-- compared when they post.
CREATE TABLE uncompared_producers (
    topic      text  NOT NULL,
    producer   text  NOT NULL,
    generation text  NOT NULL, -- of this database before the check; '' if it had none
    consumed   jsonb NOT NULL, -- by this database before the check, by epoch
    PRIMARY KEY (topic, producer)
);
