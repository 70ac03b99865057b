package store

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/headgate/headgate/services/auth-service/internal/account"
)

// ImportAccounts implements account.Store.
func (s *Store) ImportAccounts(ctx context.Context, changes []account.Change) ([]bool, error) {
	created := make([]bool, len(changes))
	err := pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		batch := &pgx.Batch{}
		for i, c := range changes {
			batch.Queue(insertAccount+` ON CONFLICT DO NOTHING`, accountArgs(c.Account)).Exec(func(tag pgconn.CommandTag) error {
				created[i] = tag.RowsAffected() == 1
				return nil
			})
		}
		if err := tx.SendBatch(ctx, batch).Close(); err != nil {
			return err
		}
		news := &pgx.Batch{}
		for i, c := range changes {
			if !created[i] {
				continue
			}
			if err := s.box.Queue(news, c.Events...); err != nil {
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
