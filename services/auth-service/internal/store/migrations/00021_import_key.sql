-- +goose NO TRANSACTION
-- +goose Up
-- A line creates one account, whatever becomes of its address.
CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS accounts_import_key ON accounts (import_key) WHERE import_key IS NOT NULL;
