package outbox

import (
	"context"
	"errors"
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
	for ctx.Err() == nil {
		r.purge(ctx)
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

// purge deletes rows that every consumer has consumed and that were published longer
// ago than a restored consumer may request them, and their hourly checksums.
func (r *Relay) purge(ctx context.Context) {
	const checksums = `DELETE FROM outbox_epoch_checksums WHERE hour < extract(epoch FROM now() - $1::interval) / 3600 - 24`
	const previous = `DELETE FROM outbox_hourly_checksums WHERE hour < extract(epoch FROM now() - $1::interval) / 3600 - 24`
	faults := []error{correctFuture(ctx, r.db)}
	topics, err := readEpochRows(ctx, r.db, r.epochs.producer)
	faults = append(faults, err)
	for _, h := range topics {
		faults = append(faults, purgeConsumed(ctx, r.db, h, reconcile.OutboxRetention))
	}
	for _, query := range []string{checksums, previous} {
		_, err := r.db.Exec(ctx, query, reconcile.OutboxRetention)
		faults = append(faults, err)
	}
	if err := errors.Join(faults...); err != nil && ctx.Err() == nil {
		r.log.WarnContext(ctx, "outbox purge failed; retrying", "error", err.Error(), "next_in_ms", purgeEvery.Milliseconds())
	}
	r.retained.measure(ctx, topics)
}
