-- +goose Up
-- When the account will be deleted, unless its owner signs in before.
ALTER TABLE accounts ADD COLUMN delete_at timestamptz;
-- Orders the addresses of an account; 0 while the address is from before this release.
ALTER TABLE accounts ADD COLUMN version bigint NOT NULL DEFAULT 0;
