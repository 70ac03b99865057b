package outbox

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/postgres"
)

// readTimeout bounds the record of a read.
const readTimeout = 2 * time.Second

// Reads returns a web.Options.Read that records each read.
func (b *Box) Reads(db *postgres.Pool) func(context.Context, string, event.Payload) error {
	return func(ctx context.Context, subject string, read event.Payload) error {
		ctx, cancel := context.WithTimeout(ctx, readTimeout)
		defer cancel()
		e := event.New(ctx, time.Now(), subject, read)
		return db.Transact(ctx, func(tx pgx.Tx) error { return b.Add(ctx, tx, e) })
	}
}
