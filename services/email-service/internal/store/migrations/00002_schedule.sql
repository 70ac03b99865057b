-- +goose Up
-- Mails that the server put off. The previous release leaves both columns NULL
-- and does not touch what is scheduled.
ALTER TABLE messages
    ADD COLUMN event           json,        -- which the mail is rendered from, its link sealed
    ADD COLUMN next_attempt_at timestamptz; -- NULL for what is not scheduled

CREATE INDEX messages_next_attempt_at ON messages (next_attempt_at) WHERE next_attempt_at IS NOT NULL;
