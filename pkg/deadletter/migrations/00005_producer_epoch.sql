-- +goose Up
-- The epoch of the producer's number; the previous release leaves it ''.
ALTER TABLE dead_letters ADD COLUMN producer_epoch text NOT NULL DEFAULT '';
