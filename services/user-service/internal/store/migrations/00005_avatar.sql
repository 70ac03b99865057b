-- +goose Up
-- The name of the avatar, or empty. Its URL is made of it when the profile is read. avatar_url is
-- not used any more.
ALTER TABLE profiles ADD COLUMN avatar text NOT NULL DEFAULT '';

-- Every name under which there may be pictures: from before the first is stored until after the
-- last is deleted. unused_since is null while the profile has the name.
CREATE TABLE avatars (
    name         text        PRIMARY KEY,
    user_id      uuid        NOT NULL,
    unused_since timestamptz
);
CREATE INDEX avatars_user ON avatars (user_id);
CREATE INDEX avatars_unused ON avatars (unused_since) WHERE unused_since IS NOT NULL;

-- One row: when an instance last began a sweep.
CREATE TABLE avatar_sweep (
    began_at timestamptz NOT NULL
);
INSERT INTO avatar_sweep VALUES ('-infinity');
