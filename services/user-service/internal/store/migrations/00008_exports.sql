-- +goose Up
-- Exports whose link was mailed, one for each user. The key in the link decrypts the data.
CREATE TABLE exports (
    user_id    uuid        PRIMARY KEY,
    key        bytea       NOT NULL CONSTRAINT exports_key UNIQUE, -- derived from the secret in the link
    data       bytea       NOT NULL, -- encrypted with another key from that secret
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL
);

ALTER TABLE exports ALTER COLUMN data SET STORAGE EXTERNAL; -- It is compressed already.
CREATE INDEX exports_expires_at ON exports (expires_at);
