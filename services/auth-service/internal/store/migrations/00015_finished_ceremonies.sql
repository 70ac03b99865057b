-- +goose Up
-- Ceremonies of passkeys whose token was used. Until their second step the client keeps
-- them. The previous release still uses the table ceremonies.
CREATE TABLE finished_ceremonies (
    id         uuid        PRIMARY KEY,
    expires_at timestamptz NOT NULL -- when the token is of no use anyway
);

CREATE INDEX finished_ceremonies_expires_at ON finished_ceremonies (expires_at);
