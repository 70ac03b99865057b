-- +goose Up
-- When the epoch was closed, or more of it became known; NULL if it is current, or was
-- closed before this migration. An epoch that the database has lost begins at first_seq
-- and ends before it, with known_seq as its last number.
ALTER TABLE outbox_epochs ADD COLUMN closed_at timestamptz;
