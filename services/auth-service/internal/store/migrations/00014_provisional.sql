-- +goose NO TRANSACTION
-- +goose Up
-- Provisional accounts are deleted if their address is not verified in time.
CREATE INDEX CONCURRENTLY IF NOT EXISTS accounts_provisional ON accounts (id) WHERE provisional AND NOT email_verified;
