-- +goose Up
-- Whether nobody had proved the address that the link was mailed to. The previous release
-- does not set it, and its links for such addresses have a shorter lifetime only.
ALTER TABLE one_time_tokens ADD COLUMN unproved boolean NOT NULL DEFAULT false;
