package store

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/services/auth-service/internal/account"
)

// ImportAccounts implements account.Store.
func (s *Store) ImportAccounts(ctx context.Context, lines []account.ImportLine, signedUp func(account.Account) event.Event) ([]string, error) {
	var created []string
	err := s.db.Transact(ctx, func(tx pgx.Tx) (err error) {
		if created, err = insertLines(ctx, tx, lines); err != nil {
			return err
		}
		if err := replaceErasedIDs(ctx, tx, lines, created); err != nil {
			return err
		}
		news := &pgx.Batch{}
		for i, id := range created {
			if id == "" {
				continue
			}
			stored := lines[i].Account
			stored.ID = id
			if err := s.box.Queue(news, signedUp(stored)); err != nil {
				return err
			}
		}
		return tx.SendBatch(ctx, news).Close()
	})
	if err != nil {
		return nil, fmt.Errorf("import accounts: %w", err)
	}
	return created, nil
}

// insertLines returns the ids of the accounts that it has inserted, and an empty id for each
// line that it has skipped.
func insertLines(ctx context.Context, tx pgx.Tx, lines []account.ImportLine) ([]string, error) {
	const insert = `
		INSERT INTO accounts (id, email, email_key, email_verified, name, role, status, mfa_enabled, password_hash,
			password_proved, provisional, created_at, updated_at, delete_at, version, import_key)
		SELECT @id, @email, @email_key, @email_verified, @name, @role, @status, @mfa_enabled, @password_hash,
			@password_proved, @provisional, @created_at, @updated_at, @delete_at, @version, @import_key
		WHERE NOT EXISTS (SELECT FROM accounts WHERE id = NULLIF(@former_id::text, '')::uuid)
		ON CONFLICT DO NOTHING`
	created, batch := make([]string, len(lines)), &pgx.Batch{}
	for i, line := range lines {
		args := accountArgs(line.Account)
		args["import_key"], args["former_id"] = line.Key, line.FormerID
		batch.Queue(insert, args).Exec(func(tag pgconn.CommandTag) error {
			if tag.RowsAffected() == 1 {
				created[i] = line.Account.ID
			}
			return nil
		})
	}
	return created, tx.SendBatch(ctx, batch).Close()
}

// replaceErasedIDs gives the created accounts whose id belonged to a deleted account a new
// one. It looks after they were inserted: an insert waits for a deletion of an account with the
// same id that is not committed yet, because the primary key conflicts.
func replaceErasedIDs(ctx context.Context, tx pgx.Tx, lines []account.ImportLine, created []string) error {
	const find = `
		SELECT id::text
		FROM erased_accounts
		WHERE id = ANY ($1::uuid[])`
	const replace = `
		UPDATE accounts
		SET id = $2
		WHERE id = $1`
	index, ids := map[string]int{}, []string{}
	for i, id := range created {
		if id != "" {
			index[id], ids = i, append(ids, id)
		}
	}
	rows, err := tx.Query(ctx, find, ids)
	if err != nil {
		return fmt.Errorf("find erased ids: %w", err)
	}
	erased, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("find erased ids: %w", err)
	}
	batch := &pgx.Batch{}
	for _, id := range erased {
		i := index[id]
		created[i] = lines[i].SpareID
		batch.Queue(replace, id, created[i])
	}
	return tx.SendBatch(ctx, batch).Close()
}

// AccountOfLine implements account.Store.
func (s *Store) AccountOfLine(ctx context.Context, key []byte) (account.Account, error) {
	return s.account(ctx, `SELECT `+accountColumns+` FROM accounts a WHERE a.import_key = $1`, key)
}

// MarkErased implements account.Store.
func (s *Store) MarkErased(ctx context.Context, id string) error {
	const query = `
		INSERT INTO erased_accounts (id)
		VALUES ($1)
		ON CONFLICT (id) DO NOTHING`
	if _, err := s.db.Exec(ctx, query, id); err != nil {
		return fmt.Errorf("mark id as erased: %w", err)
	}
	return nil
}
