-- +goose Up
-- Users who are gone: a mail that is asked for late is not sent.
CREATE TABLE deleted_users (
    user_id    text        PRIMARY KEY,
    deleted_at timestamptz NOT NULL
);

CREATE INDEX messages_user_id ON messages (user_id);
