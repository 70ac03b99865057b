-- +goose Up
-- How the owner of a session has proved who they are. The previous release writes none of
-- this: NULL is a session without a pending proof, and whose methods are not known.
ALTER TABLE sessions
    ADD COLUMN methods              text,        -- values of amr (RFC 8176), separated by spaces
    ADD COLUMN proof_hash           bytea,       -- SHA-256 of the proof that allows one change
    ADD COLUMN proof_expires_at     timestamptz,
    ADD COLUMN mail_code_hash       bytea,       -- HMAC of the mailed code: it is short
    ADD COLUMN mail_code_attempts   integer,
    ADD COLUMN mail_code_expires_at timestamptz;
