-- +goose Up
CREATE TABLE dead_letters (
    id              uuid        PRIMARY KEY,
    message_id      text        NOT NULL, -- the Watermill UUID
    event_id        uuid,                 -- NULL for what could not be decoded
    type            text,                 -- the event's name
    stream          text        NOT NULL,
    entry_id        text        NOT NULL,
    reason          text        NOT NULL,
    class           text        NOT NULL,
    attempts        jsonb       NOT NULL, -- [{at, error}]
    payload         bytea       NOT NULL,
    metadata        jsonb       NOT NULL,
    status          text        NOT NULL DEFAULT 'open' CHECK (status IN ('open', 'replayed', 'discarded')),
    first_failed_at timestamptz NOT NULL,
    last_failed_at  timestamptz NOT NULL
);

-- A message that fails again while its letter is open updates that letter.
CREATE UNIQUE INDEX dead_letters_open ON dead_letters (stream, message_id) WHERE status = 'open';
