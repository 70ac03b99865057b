-- +goose Up
-- Mails that wait for an operator since the database was restored: they may have been
-- sent before. The previous release knows no withheld mails and creates none.
CREATE TABLE restores (
    id            bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    handled_until timestamptz NOT NULL, -- when the lost database had handled its last event
    created_at    timestamptz NOT NULL,
    resumed_at    timestamptz,          -- NULL while they wait
    resumed_by    text        NOT NULL DEFAULT '',
    skip_before   timestamptz           -- mails of events that occurred before are suppressed; NULL: none
);

-- Mails of events up to these numbers are withheld.
CREATE TABLE restore_numbers (
    restore_id  bigint NOT NULL REFERENCES restores,
    producer    text   NOT NULL,
    epoch       text   NOT NULL,
    handled_seq bigint NOT NULL,
    PRIMARY KEY (restore_id, producer, epoch)
);

ALTER TABLE messages
    ADD COLUMN occurred_at timestamptz, -- when the event occurred; NULL in rows of the previous release
    ADD COLUMN restore_id  bigint,      -- because of which it is or was withheld
    DROP CONSTRAINT messages_status_check,
    ADD CONSTRAINT messages_status_check
        CHECK (status IN ('queued', 'sending', 'sent', 'deferred', 'failed', 'suppressed', 'withheld')) NOT VALID;
