-- +goose Up
CREATE TABLE profiles (
    user_id     uuid        PRIMARY KEY,
    email       text        NOT NULL,
    name        text        NOT NULL,
    bio         text        NOT NULL DEFAULT '',
    locale      text        NOT NULL DEFAULT '',
    timezone    text        NOT NULL DEFAULT '',
    avatar_url  text        NOT NULL DEFAULT '',
    preferences json        NOT NULL DEFAULT '{}', -- json keeps the bytes, so that what is stored compares
    version     bigint      NOT NULL DEFAULT 1,
    created_at  timestamptz NOT NULL,
    updated_at  timestamptz NOT NULL
);
