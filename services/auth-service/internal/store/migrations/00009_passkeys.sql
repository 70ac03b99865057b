-- +goose Up
-- Registrations of passkeys and sign-ins with them, between their two steps.
CREATE TABLE ceremonies (
    hash       bytea       PRIMARY KEY, -- SHA-256 of the token
    account_id text        NOT NULL,    -- empty for a sign-in: the passkey says whose it is
    session    text        NOT NULL,    -- what the second step is checked against
    expires_at timestamptz NOT NULL
);

CREATE INDEX ceremonies_expires_at ON ceremonies (expires_at);
