-- +goose Up
-- Administrators search for a part of an address or a name. The extension is a
-- trusted one: the owner of the database may create it.
CREATE EXTENSION IF NOT EXISTS pg_trgm;

CREATE INDEX accounts_email_trgm ON accounts USING gin (email gin_trgm_ops);
CREATE INDEX accounts_name_trgm ON accounts USING gin (name gin_trgm_ops);

-- The last administrator is looked for, and lists of few are asked for.
CREATE INDEX accounts_role ON accounts (role, id) WHERE role <> 'user';
CREATE INDEX accounts_status ON accounts (status, id) WHERE status <> 'active';
