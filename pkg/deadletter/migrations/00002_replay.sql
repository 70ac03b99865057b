-- +goose Up
-- Replay and discard. The previous release knows letters that are open only.
ALTER TABLE dead_letters
    ADD COLUMN producer     text,                      -- of the event, NULL for what could not be decoded
    ADD COLUMN producer_seq bigint,
    ADD COLUMN replay_due   timestamptz,               -- when a consumer may take it; NULL if it need not
    ADD COLUMN closed_at    timestamptz,
    ADD COLUMN closed_by    text NOT NULL DEFAULT '',  -- the actor who replayed or discarded it
    ADD COLUMN note         text NOT NULL DEFAULT '';  -- why it was discarded

CREATE INDEX dead_letters_replay_due ON dead_letters (replay_due) WHERE replay_due IS NOT NULL;
