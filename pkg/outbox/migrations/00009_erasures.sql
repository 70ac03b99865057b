-- +goose Up
-- Subjects whose personal data must leave the outbox. The previous release leaves it there.
CREATE TABLE outbox_erasures (
    subject      text        PRIMARY KEY,
    requested_at timestamptz NOT NULL DEFAULT now()
);
