-- +goose Up
-- As of when the address is: a change that comes late does not undo a later one.
ALTER TABLE profiles ADD COLUMN email_at timestamptz;
