-- +goose Up
-- What has served its time is swept.
CREATE INDEX sessions_expires_at ON sessions (expires_at);
CREATE INDEX one_time_tokens_expires_at ON one_time_tokens (expires_at);
CREATE INDEX mails_asked_asked_at ON mails_asked (asked_at);
