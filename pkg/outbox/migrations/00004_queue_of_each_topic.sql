-- +goose NO TRANSACTION
-- +goose Up
-- Each topic has a queue of its own. The order is again that of an expression, so that
-- neither the primary key nor an index over what was published can give it. The
-- previous release finds its rows in this index, too, but must sort them.
DROP INDEX CONCURRENTLY IF EXISTS outbox_topic_queue; -- an earlier attempt may have left it invalid
CREATE INDEX CONCURRENTLY outbox_topic_queue ON outbox (topic, (id + 0)) WHERE published_at IS NULL;
DROP INDEX CONCURRENTLY IF EXISTS outbox_queue;
