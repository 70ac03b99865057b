-- +goose Up
ALTER TABLE accounts ADD COLUMN mfa_enabled boolean NOT NULL DEFAULT false;

-- What somebody has besides a password.
CREATE TABLE factors (
    id           uuid        PRIMARY KEY,
    account_id   uuid        NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
    kind         text        NOT NULL CHECK (kind IN ('totp', 'passkey')),
    name         text        NOT NULL,
    secret       text        NOT NULL, -- sealed with ENCRYPTION_KEY; of a passkey, its public credential
    lookup       bytea       UNIQUE,   -- the id of a passkey's credential
    last_step    bigint      NOT NULL, -- the last time step that was used
    created_at   timestamptz NOT NULL,
    confirmed_at timestamptz,
    last_used_at timestamptz
);

CREATE INDEX factors_account_id ON factors (account_id);

CREATE TABLE recovery_codes (
    hash       bytea PRIMARY KEY, -- SHA-256; the codes have 120 random bits
    account_id uuid  NOT NULL REFERENCES accounts (id) ON DELETE CASCADE
);

CREATE INDEX recovery_codes_account_id ON recovery_codes (account_id);

-- Sign-ins between the password and the second factor.
CREATE TABLE challenges (
    hash        bytea       PRIMARY KEY, -- SHA-256 of the token
    account_id  uuid        NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
    device_name text        NOT NULL,
    attempts    integer     NOT NULL,
    expires_at  timestamptz NOT NULL
);

CREATE INDEX challenges_account_id ON challenges (account_id);
CREATE INDEX challenges_expires_at ON challenges (expires_at);
