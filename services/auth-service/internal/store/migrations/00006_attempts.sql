-- +goose Up
-- Passwords that were tried and did not fit. A row is gone after a success.
CREATE TABLE login_failures (
    key           bytea       PRIMARY KEY, -- SHA-256 of the address, or of the address and a network
    failures      integer     NOT NULL,
    last_at       timestamptz NOT NULL,
    blocked_until timestamptz
);

CREATE INDEX login_failures_last_at ON login_failures (last_at);

-- From which network a session is used: its owner is known there. NULL is a
-- session of the previous release.
ALTER TABLE sessions
    ADD COLUMN network          text,
    ADD COLUMN authenticated_at timestamptz; -- when its owner last proved who they are; NULL is created_at

CREATE INDEX sessions_network ON sessions (account_id, network);

-- The first answers to requests with an Idempotency-Key.
CREATE TABLE idempotency_keys (
    key         bytea       PRIMARY KEY, -- SHA-256 of the client's
    fingerprint bytea       NOT NULL,    -- HMAC of the request
    reserved_at timestamptz NOT NULL,
    answer      text        -- sealed with ENCRYPTION_KEY; NULL while the request is at work
);

CREATE INDEX idempotency_keys_reserved_at ON idempotency_keys (reserved_at);
