-- +goose Up
-- What the outbox still knows of deletions before erased_accounts existed. It reads the whole
-- outbox, so it is not in the transaction that locks accounts for the trigger. The trigger was
-- committed before, so no deletion is missed in between.
INSERT INTO erased_accounts (id, erased_at)
SELECT (payload->>'subject')::uuid, min(created_at)
FROM outbox
WHERE name = 'user.deleted.v1'
GROUP BY payload->>'subject'
ON CONFLICT (id) DO NOTHING;
