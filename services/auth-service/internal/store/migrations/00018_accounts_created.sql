-- +goose NO TRANSACTION
-- +goose Up
-- Lists of accounts are by the time of creation: the ids of imported accounts do not tell it.
CREATE INDEX CONCURRENTLY IF NOT EXISTS accounts_created ON accounts (created_at DESC, id DESC);
