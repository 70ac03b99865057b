package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/services/auth-service/internal/account"
)

// allowMail returns an account.AllowMail for an account, which may be empty, that counts in
// the transaction of q.
func (s *Store) allowMail(q postgres.Querier, accountID string) account.AllowMail {
	return func(ctx context.Context, kind account.MailKind, to account.Email) (bool, error) {
		charge := account.MailCharge{Kind: kind, To: to, AccountID: accountID, Network: event.OriginFrom(ctx).Network()}
		return s.charge(ctx, q, charge.Budgets(s.Limits))
	}
}

// AllowAnswer implements account.Store.
func (s *Store) AllowAnswer(ctx context.Context, network string) (allowed bool, err error) {
	budgets := account.NetworkBudget(network, s.Limits)
	if len(budgets) == 0 {
		return true, nil
	}
	err = s.db.Transact(ctx, func(tx pgx.Tx) error {
		allowed, err = s.charge(ctx, tx, budgets)
		return err
	})
	return allowed, err
}

// charge charges all budgets, if each of them has something left, in the transaction of q.
// The first is locked, so only the others can be exceeded, by as many as are charged at the
// same time: with a lock of a network, its sign-ups would wait for each other's commit.
func (s *Store) charge(ctx context.Context, q postgres.Querier, budgets []account.MailBudget) (bool, error) {
	const count = `
		SELECT count(*) FILTER (WHERE asked_at > $2), count(*)
		FROM mails_asked
		WHERE address = $1 AND asked_at > $3`
	const add = `
		INSERT INTO mails_asked (address, asked_at)
		SELECT unnest($1::bytea[]), $2`
	if _, err := q.Exec(ctx, lockAddress, addressHash(budgets[0].Key)); err != nil {
		return false, fmt.Errorf("lock mail budget: %w", err)
	}
	now := s.time()
	allowed, keys, batch := true, make([][]byte, len(budgets)), &pgx.Batch{}
	for i, b := range budgets {
		keys[i] = addressHash(b.Key)
		batch.Queue(count, keys[i], now.Add(-time.Hour), now.Add(-24*time.Hour)).QueryRow(func(row pgx.Row) error {
			var hour, day int
			err := row.Scan(&hour, &day)
			if hour >= b.PerHour && b.PerHour > 0 || day >= b.PerDay && b.PerDay > 0 {
				allowed = false
			}
			return err
		})
	}
	if err := q.SendBatch(ctx, batch).Close(); err != nil {
		return false, fmt.Errorf("count mails: %w", err)
	}
	if !allowed {
		return false, nil
	}
	if _, err := q.Exec(ctx, add, keys, now); err != nil {
		return false, fmt.Errorf("count mails: %w", err)
	}
	return true, nil
}
