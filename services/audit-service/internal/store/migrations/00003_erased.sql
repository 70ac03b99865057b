-- +goose Up
-- Users who are gone: what is recorded of them later is without personal data.
CREATE TABLE erased_users (
    user_id   text        PRIMARY KEY,
    erased_at timestamptz NOT NULL
);
