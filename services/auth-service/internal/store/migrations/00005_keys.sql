-- +goose Up
-- A key is published for a while before it signs. The previous release signs
-- with the newest key at once: rotate after the last replica was replaced.
ALTER TABLE signing_keys ADD COLUMN activates_at timestamptz;
