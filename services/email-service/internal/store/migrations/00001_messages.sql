-- +goose Up
CREATE TABLE messages (
    id         uuid        PRIMARY KEY,
    event_id   uuid        NOT NULL,
    template   text        NOT NULL,
    user_id    text        NOT NULL,
    recipient  text        NOT NULL,
    message_id text        NOT NULL, -- the Message-ID, the same at every attempt
    request_id text        NOT NULL,
    status     text        NOT NULL CHECK (status IN ('queued', 'sending', 'sent', 'deferred', 'failed', 'suppressed')),
    attempts   integer     NOT NULL DEFAULT 0,
    last_error text        NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    sent_at    timestamptz,
    -- One event makes one message of a kind, however often it is delivered.
    CONSTRAINT messages_event_template_key UNIQUE (event_id, template)
);

CREATE INDEX messages_recipient ON messages (recipient, id DESC);
CREATE INDEX messages_status ON messages (status, id DESC);
