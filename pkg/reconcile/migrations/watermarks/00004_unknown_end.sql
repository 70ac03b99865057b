-- +goose Up
ALTER TABLE epoch_watermarks
    ADD COLUMN end_unknown boolean NOT NULL DEFAULT false, -- nobody knows whether there were events after end_seq
    ADD COLUMN post_interval interval;                     -- at which the producer posts watermarks; NULL if it does not say
