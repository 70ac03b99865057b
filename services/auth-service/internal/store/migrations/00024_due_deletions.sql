-- +goose NO TRANSACTION
-- +goose Up
CREATE INDEX CONCURRENTLY IF NOT EXISTS accounts_delete_at ON accounts (delete_at) WHERE delete_at IS NOT NULL;
