-- +goose Up
-- Subjects whose dead letters keep no content. The previous release keeps it.
CREATE TABLE dead_letters_erased (
    subject   text        PRIMARY KEY,
    erased_at timestamptz NOT NULL DEFAULT now()
);
