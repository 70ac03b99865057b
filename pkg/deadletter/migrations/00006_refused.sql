-- +goose Up
-- Whether the event was not published by its producer: its signature was missing or wrong.
-- Such a dead letter is no proof that the event was consumed, and has no producer or number.
ALTER TABLE dead_letters ADD COLUMN refused boolean NOT NULL DEFAULT false;
