-- +goose NO TRANSACTION
-- +goose Up
DROP INDEX CONCURRENTLY IF EXISTS outbox_rows_of_subject; -- an earlier attempt may have left it invalid
CREATE INDEX CONCURRENTLY outbox_rows_of_subject ON outbox (subject, id) WHERE subject <> '';
