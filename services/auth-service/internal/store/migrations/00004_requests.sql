-- +goose Up
-- What strangers asked for by naming an address, until it is served.
CREATE TABLE mail_requests (
    id          bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    purpose     text        NOT NULL,
    email       text        NOT NULL,
    email_key   text        NOT NULL,
    account_id  uuid,       -- of a sign-up, which also has:
    name        text,
    password    text,       -- its hash
    origin      json        NOT NULL,
    accepted_at timestamptz NOT NULL,
    due_at      timestamptz NOT NULL
);

CREATE INDEX mail_requests_due_at ON mail_requests (due_at, id);

-- The mails that an address got because somebody asked, to keep them few.
CREATE TABLE mails_asked (
    address  bytea       NOT NULL, -- SHA-256 of the address's key: it need not have an account
    asked_at timestamptz NOT NULL
);

CREATE INDEX mails_asked_address ON mails_asked (address, asked_at);
