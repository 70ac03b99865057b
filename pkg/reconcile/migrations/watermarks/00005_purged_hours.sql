-- +goose Up
-- Records of the hour were purged, so its checksum cannot be compared any more.
ALTER TABLE epoch_checksums ADD COLUMN purged boolean NOT NULL DEFAULT false;
