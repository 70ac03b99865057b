-- +goose NO TRANSACTION
-- +goose Up
-- Whether a credential or a session belongs to a person who has proved the address of
-- the account. What the previous release adds is unproved. Existing rows are what their
-- account is: that default is set at once, and only rows of unverified accounts are
-- written, without a lock on the table.
SET lock_timeout = '2500ms';

ALTER TABLE accounts
    ADD COLUMN IF NOT EXISTS password_proved boolean NOT NULL DEFAULT true,
    -- Signed up by a person who could not sign in before the address was verified. Nobody
    -- has used such an account while it is unverified, so it may be replaced or deleted.
    ADD COLUMN IF NOT EXISTS provisional boolean NOT NULL DEFAULT false;
ALTER TABLE accounts ALTER COLUMN password_proved SET DEFAULT false;
UPDATE accounts SET password_proved = false WHERE NOT email_verified AND password_proved;

ALTER TABLE factors ADD COLUMN IF NOT EXISTS proved boolean NOT NULL DEFAULT true;
ALTER TABLE factors ALTER COLUMN proved SET DEFAULT false;
UPDATE factors f SET proved = false
FROM accounts a
WHERE a.id = f.account_id AND NOT a.email_verified AND f.proved;

ALTER TABLE sessions ADD COLUMN IF NOT EXISTS proved boolean NOT NULL DEFAULT true;
ALTER TABLE sessions ALTER COLUMN proved SET DEFAULT false;
UPDATE sessions s SET proved = false
FROM accounts a
WHERE a.id = s.account_id AND NOT a.email_verified AND s.proved;
