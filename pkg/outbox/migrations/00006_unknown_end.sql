-- +goose Up
-- The database was replaced while Redis could not tell how far the epoch had gone: there
-- may have been events after known_seq of which nobody knows.
ALTER TABLE outbox_epochs ADD COLUMN end_unknown boolean NOT NULL DEFAULT false;
