-- +goose NO TRANSACTION
-- +goose Up
-- A line creates one account, whatever becomes of its address.
CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS accounts_import_key ON accounts (import_key) WHERE import_key IS NOT NULL;

-- The costs of hashes that earlier systems left: what takes longest to check is what every
-- wrong password must take.
CREATE INDEX CONCURRENTLY IF NOT EXISTS accounts_hash_parameters
    ON accounts ((split_part(password_hash, '$', 2) || '$' || split_part(password_hash, '$', 3)))
    WHERE password_hash LIKE '$pbkdf2%' OR password_hash LIKE '$fbscrypt%';
