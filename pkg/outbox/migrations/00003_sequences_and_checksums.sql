-- +goose Up
-- The terms of the protocol in package reconcile. The previous release reads and
-- writes through views with the old names.
ALTER TABLE outbox_heads RENAME TO outbox_sequences;
ALTER TABLE outbox_sequences RENAME COLUMN seq TO last_seq;
ALTER INDEX outbox_heads_pkey RENAME TO outbox_sequences_pkey;
CREATE VIEW outbox_heads AS SELECT topic, last_seq AS seq FROM outbox_sequences;

ALTER TABLE outbox_tallies RENAME TO outbox_hourly_checksums;
ALTER INDEX outbox_tallies_pkey RENAME TO outbox_hourly_checksums_pkey;
CREATE VIEW outbox_tallies AS SELECT topic, hour, count, sum, last_seq FROM outbox_hourly_checksums;
