-- +goose Up
-- The ids of deleted accounts. Other services have erased these ids permanently, so no
-- account may get one of them again. A trigger writes them, because the previous release deletes
-- accounts, too.
CREATE TABLE erased_accounts (
    id        uuid        PRIMARY KEY,
    erased_at timestamptz NOT NULL DEFAULT now()
);

-- +goose StatementBegin
CREATE FUNCTION record_erased_account() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO erased_accounts (id) VALUES (OLD.id) ON CONFLICT (id) DO NOTHING;
    RETURN NULL;
END
$$;
-- +goose StatementEnd

CREATE TRIGGER accounts_erased AFTER DELETE ON accounts
    FOR EACH ROW EXECUTE FUNCTION record_erased_account();

-- Which line of an import created the account: SHA-256 of its id, or of its address and
-- time. NULL is an account that signed up, or that the previous release has imported.
ALTER TABLE accounts ADD COLUMN import_key bytea;
