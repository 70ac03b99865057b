-- +goose NO TRANSACTION
-- +goose Up
-- The highest cost of the hashes that an earlier system left: what takes longest
-- to check is what every wrong password must take. Built while others write.
CREATE INDEX CONCURRENTLY IF NOT EXISTS accounts_bcrypt_cost ON accounts (substr(password_hash, 5, 2)) WHERE password_hash LIKE '$2%';
