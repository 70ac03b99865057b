-- +goose Up
-- Whether the address has an account. Few failures on other addresses are soon forgotten.
-- The previous release does not set it, and forgets few failures on every address.
ALTER TABLE consecutive_failures ADD COLUMN has_account boolean NOT NULL DEFAULT false;
