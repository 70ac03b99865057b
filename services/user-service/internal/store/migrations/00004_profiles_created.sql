-- +goose NO TRANSACTION
-- +goose Up
-- The list of profiles is by the time of creation: the ids of imported accounts do not tell it.
CREATE INDEX CONCURRENTLY IF NOT EXISTS profiles_created ON profiles (created_at DESC, user_id DESC) WHERE deleted_at IS NULL;
