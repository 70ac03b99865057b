-- +goose Up
-- The row of a deleted account stays, without anything personal, so that news
-- which comes late does not make a profile of it again.
ALTER TABLE profiles ADD COLUMN deleted_at timestamptz;
