package deadletter

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
)

// Retention is the part of the configuration that says how long closed dead letters are
// kept.
type Retention struct {
	DeadLetterRetention time.Duration `envconfig:"DEAD_LETTER_RETENTION" default:"2160h" desc:"How long replayed and discarded dead letters are kept; at least 24h. Open ones are kept until they are closed."`
}

// Validate implements service.Validator.
func (r Retention) Validate() error {
	if r.DeadLetterRetention < 24*time.Hour {
		return errors.New("DEAD_LETTER_RETENTION: want 24h or more")
	}
	return nil
}

// Purge deletes closed dead letters that are older than the retention. It is a
// service.Runner. Every instance of a service may run one.
type Purge struct {
	cfg PurgeConfig
}

// PurgeConfig says which dead letters are deleted.
type PurgeConfig struct {
	Store     *Store
	Retention time.Duration // all are kept if zero
	// AreRecords says that the dead letters are the service's consumed-event records. A
	// row that is a record is then kept without its content, so that its event does not
	// become a gap. It is in no list any more. One without a sequence number is no record,
	// and is deleted.
	AreRecords bool
	Log        *slog.Logger
}

const (
	purgeEvery = time.Hour
	purgeBatch = 500
)

// NewPurge returns a purge.
func NewPurge(cfg PurgeConfig) *Purge { return &Purge{cfg: cfg} }

// Run implements service.Runner.
func (p *Purge) Run(ctx context.Context) error {
	tick := time.NewTicker(purgeEvery)
	defer tick.Stop()
	for {
		n, err := p.Once(ctx)
		if err != nil && ctx.Err() == nil {
			p.cfg.Log.WarnContext(ctx, "dead letter purge failed; retrying", "error", err.Error(), "next_in_ms", purgeEvery.Milliseconds())
		}
		if n > 0 {
			p.cfg.Log.InfoContext(ctx, "closed dead letters purged", "count", n)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// expired selects a batch of the dead letters to purge. One that is to be kept as a record
// has a sequence number; what could not be decoded has none.
const expired = `
	SELECT id FROM dead_letters
	WHERE status IN ('replayed', 'discarded') AND purged_at IS NULL AND coalesce(closed_at, last_failed_at) < @before
		AND (@records AND coalesce(producer_seq, 0) > 0) = @keep
	LIMIT @limit
	FOR UPDATE SKIP LOCKED`

// Once purges what is due, in batches, and returns how many dead letters that were.
func (p *Purge) Once(ctx context.Context) (int64, error) {
	const remove = `DELETE FROM dead_letters WHERE id IN (` + expired + `)`
	const strip = `
		UPDATE dead_letters
		SET purged_at = @now, message_id = '', entry_id = '', reason = '', class = '', attempts = '[]', payload = '',
			metadata = '{}', closed_by = '', note = ''
		WHERE id IN (` + expired + `)`
	if p.cfg.Retention == 0 {
		return 0, nil
	}
	now := p.cfg.Store.now()
	args := pgx.StrictNamedArgs{"before": now.Add(-p.cfg.Retention), "limit": purgeBatch, "records": p.cfg.AreRecords, "keep": false}
	total, err := p.batches(ctx, remove, args)
	if err != nil || !p.cfg.AreRecords {
		return total, err
	}
	args["now"], args["keep"] = now, true
	stripped, err := p.batches(ctx, strip, args)
	return total + stripped, err
}

// batches runs query until it finds nothing more, and returns the number of rows.
func (p *Purge) batches(ctx context.Context, query string, args pgx.StrictNamedArgs) (total int64, err error) {
	for {
		tag, err := p.cfg.Store.db.Exec(ctx, query, args)
		if err != nil {
			return total, fmt.Errorf("purge dead letters: %w", err)
		}
		total += tag.RowsAffected()
		if tag.RowsAffected() == 0 {
			return total, nil
		}
	}
}
