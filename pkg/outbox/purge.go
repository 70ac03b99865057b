package outbox

import (
	"context"
	"time"

	"github.com/headgate/headgate/pkg/reconcile"
)

const (
	purgeEvery = 10 * time.Minute
	purgeBatch = 10_000
)

// purgeRegularly purges until ctx ends.
func (r *Relay) purgeRegularly(ctx context.Context) {
	tick := time.NewTicker(purgeEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			r.purge(ctx)
		}
	}
}

// purge deletes rows that were published longer ago than consumers may request
// them, and their hourly checksums.
func (r *Relay) purge(ctx context.Context) {
	const query = `
		DELETE FROM outbox
		WHERE id IN (
			SELECT id FROM outbox
			WHERE published_at < now() - $1::interval
			ORDER BY published_at
			LIMIT $2)`
	for {
		tag, err := r.db.Exec(ctx, query, reconcile.OutboxRetention, purgeBatch)
		if err != nil {
			r.log.WarnContext(ctx, "outbox purge failed; retrying", "error", err.Error(), "next_in_ms", purgeEvery.Milliseconds())
			break
		}
		if tag.RowsAffected() < purgeBatch {
			break
		}
	}
	const checksums = `DELETE FROM outbox_hourly_checksums WHERE hour < extract(epoch FROM now() - $1::interval) / 3600 - 24`
	if _, err := r.db.Exec(ctx, checksums, reconcile.OutboxRetention); err != nil {
		r.log.WarnContext(ctx, "hourly checksum purge failed; retrying", "error", err.Error(), "next_in_ms", purgeEvery.Milliseconds())
	}
}
