-- +goose NO TRANSACTION
-- +goose Up
-- The words of the name, and the address, each found by its beginning in any script. The expression
-- is that of internal/store/directory.go. Without pending lists, a search is fast at any time.
CREATE INDEX CONCURRENTLY IF NOT EXISTS profiles_directory ON profiles USING gin (array_to_tsvector(array_remove(string_to_array(
    translate(lower(name COLLATE "und-x-icu"), ' ς', E'\nσ') || E'\n' || translate(lower(email COLLATE "und-x-icu"), 'ς', 'σ'), E'\n'), '')))
WITH (fastupdate = off) WHERE deleted_at IS NULL;
