-- +goose Up
-- The sessions that were ended while access tokens of theirs may still live.
-- They outlive their account, so they refer to nothing.
CREATE TABLE revocations (
    session_id uuid        PRIMARY KEY,
    revoked_at timestamptz NOT NULL
);

CREATE INDEX revocations_revoked_at ON revocations (revoked_at);

INSERT INTO revocations (session_id, revoked_at)
SELECT id, revoked_at FROM sessions WHERE revoked_at > now() - interval '2 hours';
