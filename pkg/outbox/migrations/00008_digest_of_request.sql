-- +goose Up
-- The request that was answered last, as a whole: it may ask first for an event that is
-- missing for good, and then for others. The next release drops lowest.
ALTER TABLE outbox_answers
    ADD COLUMN digest text NOT NULL DEFAULT '',
    ADD COLUMN partly boolean NOT NULL DEFAULT false; -- a chunk of an hour was too large for one answer
