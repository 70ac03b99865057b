-- +goose Up
CREATE TABLE events (
    id             uuid        PRIMARY KEY, -- the event's id: recorded once, however often it is delivered
    type           text        NOT NULL,
    version        integer     NOT NULL,
    occurred_at    timestamptz NOT NULL,
    recorded_at    timestamptz NOT NULL DEFAULT now(),
    producer       text        NOT NULL,
    actor_type     text        NOT NULL,
    actor_id       text        NOT NULL,
    subject_id     text        NOT NULL,
    outcome        text        NOT NULL,
    ip             text        NOT NULL,
    user_agent     text        NOT NULL,
    request_id     text        NOT NULL,
    correlation_id text        NOT NULL,
    causation_id   text        NOT NULL,
    data           jsonb       NOT NULL
);

-- Lists are newest first by the id, a UUIDv7; each filter that narrows has an
-- index in that order.
CREATE INDEX events_subject_id ON events (subject_id, id DESC) WHERE subject_id <> '';
CREATE INDEX events_actor_id ON events (actor_id, id DESC) WHERE actor_id <> '';
CREATE INDEX events_type ON events (type, id DESC);
CREATE INDEX events_request_id ON events (request_id) WHERE request_id <> '';
CREATE INDEX events_ip ON events (ip, id DESC) WHERE ip <> '';
CREATE INDEX events_occurred_at ON events (occurred_at);
