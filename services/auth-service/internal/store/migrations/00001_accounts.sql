-- +goose Up
CREATE TABLE accounts (
    id             uuid        PRIMARY KEY,
    email          text        NOT NULL, -- as typed, domain in ASCII: where mail goes
    email_key      text        NOT NULL CONSTRAINT accounts_email_key UNIQUE, -- what makes two addresses the same
    email_verified boolean     NOT NULL DEFAULT false,
    name           text        NOT NULL,
    role           text        NOT NULL CHECK (role IN ('user', 'auditor', 'admin')),
    status         text        NOT NULL CHECK (status IN ('active', 'disabled')),
    password_hash  text        NOT NULL,
    created_at     timestamptz NOT NULL,
    updated_at     timestamptz NOT NULL
);

CREATE TABLE sessions (
    id             uuid        PRIMARY KEY,
    account_id     uuid        NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
    generation     integer     NOT NULL, -- of the refresh token that is good
    rotated_at     timestamptz NOT NULL,
    device_name    text        NOT NULL,
    user_agent     text        NOT NULL,
    ip             text        NOT NULL,
    created_at     timestamptz NOT NULL,
    last_used_at   timestamptz NOT NULL,
    expires_at     timestamptz NOT NULL, -- when nobody refreshes it
    ends_at        timestamptz NOT NULL, -- whatever happens
    revoked_at     timestamptz,
    revoked_reason text
);

CREATE INDEX sessions_account_id ON sessions (account_id, id);

CREATE TABLE one_time_tokens (
    hash       bytea       PRIMARY KEY, -- SHA-256: the table gives no working link away
    purpose    text        NOT NULL,
    account_id uuid        NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
    email      text        NOT NULL, -- what the token proves to own
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    used_at    timestamptz
);

CREATE INDEX one_time_tokens_account_id ON one_time_tokens (account_id);

CREATE TABLE signing_keys (
    kid         text        PRIMARY KEY,
    private_key text        NOT NULL, -- PKCS #8, sealed with ENCRYPTION_KEY
    created_at  timestamptz NOT NULL
);
