package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/services/auth-service/internal/account"
)

// The cap on mails of a kind to an address (SEC-34).
const (
	mailsPerHour = 3
	mailsPerDay  = 10
)

// allowMail returns an account.AllowMail that counts in the transaction of q.
func allowMail(q postgres.Querier, now time.Time) func(context.Context, account.MailKind, account.Email) (bool, error) {
	const deleteOld = `
		DELETE FROM mails_asked
		WHERE address = $1 AND asked_at <= $2`
	const count = `
		SELECT count(*) FILTER (WHERE asked_at > $2), count(*)
		FROM mails_asked
		WHERE address = $1`
	const add = `
		INSERT INTO mails_asked (address, asked_at)
		VALUES ($1, $2)`
	return func(ctx context.Context, kind account.MailKind, to account.Email) (bool, error) {
		address := addressHash(string(kind) + to.Key)
		batch := &pgx.Batch{}
		batch.Queue(lockAddress, address)
		batch.Queue(deleteOld, address, now.Add(-24*time.Hour))
		var hour, day int
		batch.Queue(count, address, now.Add(-time.Hour)).QueryRow(func(row pgx.Row) error { return row.Scan(&hour, &day) })
		if err := q.SendBatch(ctx, batch).Close(); err != nil {
			return false, fmt.Errorf("count mails to an address: %w", err)
		}
		if hour >= mailsPerHour || day >= mailsPerDay {
			return false, nil
		}
		if _, err := q.Exec(ctx, add, address, now); err != nil {
			return false, fmt.Errorf("count mails to an address: %w", err)
		}
		return true, nil
	}
}
