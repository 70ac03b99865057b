-- +goose NO TRANSACTION
-- +goose Up
ALTER TABLE messages VALIDATE CONSTRAINT messages_status_check;

-- An index whose build was interrupted is invalid, so it is dropped first.
DROP INDEX CONCURRENTLY IF EXISTS messages_withheld;
CREATE INDEX CONCURRENTLY messages_withheld ON messages (restore_id, id) WHERE status = 'withheld';

-- What a request of a user has led to.
DROP INDEX CONCURRENTLY IF EXISTS messages_request_id;
CREATE INDEX CONCURRENTLY messages_request_id ON messages (request_id, id DESC) WHERE request_id <> '';
