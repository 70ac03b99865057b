-- +goose Up
-- Published watermarks and hourly checksums, as producers posted them. The previous
-- release reads and writes through views with the old names.
ALTER TABLE ledgers RENAME TO published_watermarks;
ALTER TABLE published_watermarks RENAME COLUMN head TO published_seq; -- up to which every event was published
ALTER TABLE published_watermarks RENAME COLUMN settled_to TO consumed_seq; -- up to which every event has a record
ALTER INDEX ledgers_pkey RENAME TO published_watermarks_pkey;
CREATE VIEW ledgers AS
SELECT topic, producer, published_seq AS head, reported_at, consumed_seq AS settled_to
FROM published_watermarks;

ALTER TABLE ledger_hours RENAME TO hourly_checksums;
ALTER TABLE hourly_checksums RENAME COLUMN agrees TO matched; -- the records of the hour had this count and sum
ALTER INDEX ledger_hours_pkey RENAME TO hourly_checksums_pkey;
CREATE VIEW ledger_hours AS
SELECT topic, producer, hour, count, sum, last_seq, matched AS agrees
FROM hourly_checksums;
