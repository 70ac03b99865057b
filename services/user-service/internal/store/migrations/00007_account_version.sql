-- +goose Up
-- The version of the account that has the address: a change that comes late does not undo a
-- later one, whatever the clocks say.
ALTER TABLE profiles ADD COLUMN account_version bigint NOT NULL DEFAULT 0;
