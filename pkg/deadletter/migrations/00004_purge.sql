-- +goose NO TRANSACTION
-- +goose Up
-- Closed dead letters are deleted after a while. One that proves that its event was
-- consumed keeps its row, without content.
SET lock_timeout = '2500ms'; -- Writers wait behind an ALTER TABLE that waits for a backup.
ALTER TABLE dead_letters ADD COLUMN IF NOT EXISTS purged_at timestamptz;

SET lock_timeout = 0;
-- An index whose build was interrupted is invalid, so it is dropped first.
DROP INDEX CONCURRENTLY IF EXISTS dead_letters_closed;
CREATE INDEX CONCURRENTLY dead_letters_closed ON dead_letters ((coalesce(closed_at, last_failed_at)))
    WHERE status IN ('replayed', 'discarded') AND purged_at IS NULL;
