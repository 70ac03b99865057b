-- +goose Up
-- Device tokens that were issued before are invalid. NULL: the password was never changed.
-- The previous release does not set it, but issues no such tokens.
ALTER TABLE accounts ADD COLUMN password_changed_at timestamptz;

-- Networks from which the owner of an account has used a mailed link. Those of sessions are
-- in sessions.
CREATE TABLE known_networks (
    account_id uuid        NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
    network    text        NOT NULL,
    known_at   timestamptz NOT NULL,
    PRIMARY KEY (account_id, network)
);

CREATE INDEX known_networks_known_at ON known_networks (known_at);

-- Failed attempts on an address from all networks since the last success.
CREATE TABLE consecutive_failures (
    key      bytea       PRIMARY KEY, -- SHA-256 of the address
    failures integer     NOT NULL,
    last_at  timestamptz NOT NULL
);

CREATE INDEX consecutive_failures_last_at ON consecutive_failures (last_at);

-- All sessions that began before are revoked. It has one row at most.
CREATE TABLE revoked_before (
    single boolean     PRIMARY KEY DEFAULT true CHECK (single),
    before timestamptz NOT NULL
);
