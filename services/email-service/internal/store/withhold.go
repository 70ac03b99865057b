package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/reconcile"
)

const withholdBatch = 500

// Withhold withholds the mails that may have been sent before the database was restored:
// those of the events that were handled, which arrive again later, and all that are
// waiting in the database, also those about which an operator decided in the copy. They are
// sent or suppressed when Resume was called. Other mails are sent as usual. If it fails, for
// example because a row is locked, it has to be called again, before the database counts as
// checked.
//
// The numbers of the events decide, not times: the clocks of the producers and of this
// service may have been wrong.
func (s *Store) Withhold(ctx context.Context, handled reconcile.Handled) error {
	const extend = `
		UPDATE restores SET handled_until = greatest(handled_until, $1), created_at = $2
		WHERE id = (SELECT max(id) FROM restores WHERE resumed_at IS NULL)
		RETURNING id`
	const insert = `INSERT INTO restores (handled_until, created_at) VALUES ($1, $2) RETURNING id`
	const number = `
		INSERT INTO restore_numbers AS n (restore_id, producer, epoch, handled_seq) VALUES ($1, $2, $3, $4)
		ON CONFLICT (restore_id, producer, epoch) DO UPDATE SET handled_seq = greatest(n.handled_seq, excluded.handled_seq)`
	const waiting = `
		SELECT id::text FROM messages
		WHERE status IN ('queued', 'sending', 'deferred')
			OR status = 'withheld' AND restore_id IN (SELECT id FROM restores WHERE resumed_at IS NOT NULL)`
	const withhold = `
		UPDATE messages SET status = 'withheld', restore_id = $2, next_attempt_at = NULL, updated_at = $3
		WHERE id = ANY($1::uuid[]) AND status IN ('queued', 'sending', 'deferred', 'withheld')`
	now := s.now()
	var id int64
	err := s.db.Transact(ctx, func(tx pgx.Tx) error {
		err := tx.QueryRow(ctx, extend, handled.Until, now).Scan(&id)
		if errors.Is(err, pgx.ErrNoRows) {
			err = tx.QueryRow(ctx, insert, handled.Until, now).Scan(&id)
		}
		if err != nil {
			return err
		}
		batch := &pgx.Batch{}
		for producer, epochs := range handled.Numbers {
			for epoch, seq := range epochs {
				batch.Queue(number, id, producer, epoch, seq)
			}
		}
		return tx.SendBatch(ctx, batch).Close()
	})
	if err != nil {
		return fmt.Errorf("store restore: %w", err)
	}
	rows, err := s.db.Query(ctx, waiting)
	if err != nil {
		return fmt.Errorf("read waiting deliveries: %w", err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("read waiting deliveries: %w", err)
	}
	for batch := range slices.Chunk(ids, withholdBatch) {
		if _, err := s.db.Exec(ctx, withhold, batch, id, now); err != nil {
			return fmt.Errorf("withhold deliveries: %w", err)
		}
	}
	return nil
}

// Withheld says what waits for an operator.
type Withheld struct {
	Since        time.Time // zero if nothing waits
	HandledUntil time.Time // when the lost database had handled its last event
	Mails        int       // that arrived so far; more may arrive as long as events are published again
}

// Withheld returns what waits for an operator.
func (s *Store) Withheld(ctx context.Context) (Withheld, error) {
	const query = `
		SELECT created_at, handled_until, (SELECT count(*) FROM messages WHERE status = 'withheld' AND restore_id = restores.id)
		FROM restores
		WHERE resumed_at IS NULL
		ORDER BY id DESC
		LIMIT 1`
	var h Withheld
	err := s.db.QueryRow(ctx, query).Scan(&h.Since, &h.HandledUntil, &h.Mails)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return Withheld{}, fmt.Errorf("read withheld deliveries: %w", err)
	}
	return h, nil
}

// Resumed counts what Resume decided: restores, and the mails that were withheld then.
type Resumed struct{ Restores, Due, Suppressed int }

// Resume makes the withheld mails due, except that those of events that occurred
// before skipBefore are suppressed, as are those whose time is in the future; the zero
// time suppresses none. The same applies to
// events that arrive later. A mail whose link has expired meanwhile fails when it is due.
// Resume records the decision as an event and applies it in batches. If it is
// interrupted, the running service continues; calling it again is safe.
func (s *Store) Resume(ctx context.Context, skipBefore time.Time) (Resumed, error) {
	const decide = `
		UPDATE restores SET resumed_at = $1, resumed_by = $2, skip_before = $3
		WHERE resumed_at IS NULL
		RETURNING handled_until`
	const count = `
		SELECT count(*) FILTER (WHERE NOT skip), count(*) FILTER (WHERE skip)
		FROM (
			SELECT ` + skips + ` AS skip
			FROM restores r JOIN messages m ON m.restore_id = r.id AND m.status = 'withheld',
				coalesce(m.occurred_at, m.created_at) AS occurred
			WHERE r.resumed_at = $1
		) AS resumed`
	by, now := event.OriginFrom(ctx).Actor, s.now().Truncate(time.Microsecond)
	var resumed Resumed
	err := s.db.Transact(ctx, func(tx pgx.Tx) error {
		var skip *time.Time
		if !skipBefore.IsZero() {
			skip = &skipBefore
		}
		rows, err := tx.Query(ctx, decide, now, by.Type+":"+by.ID, skip)
		if err != nil {
			return err
		}
		restores, err := pgx.CollectRows(rows, pgx.RowTo[time.Time])
		if err != nil || len(restores) == 0 {
			return err
		}
		// The running service cannot apply the decision before it is committed.
		if err := tx.QueryRow(ctx, count, now).Scan(&resumed.Due, &resumed.Suppressed); err != nil {
			return err
		}
		resumed.Restores = len(restores)
		events := make([]event.Event, len(restores))
		for i, handledUntil := range restores {
			events[i] = event.New(ctx, now, "", event.EmailResumed{HandledUntil: handledUntil.UTC(), SkipBefore: skip})
		}
		return s.box.Add(ctx, tx, events...)
	})
	for n := int64(1); err == nil && n > 0; {
		n, err = s.resumeBatch(ctx, "true")
	}
	if err != nil {
		return Resumed{}, fmt.Errorf("resume withheld deliveries: %w", err)
	}
	return resumed, nil
}

// skips is the SQL condition for a withheld mail, whose event occurred at a time, that the
// decision about the restore r suppresses. The event was handled before the restore. If it
// occurred after that, a clock was ahead, and the mail counts as old.
const skips = `(r.skip_before IS NOT NULL AND (occurred < r.skip_before OR occurred > r.created_at))`

// resumeBatch applies the decisions of operators to some of the deliveries that are still
// withheld, if an SQL condition is true, and returns how many those are. A delivery
// without an event is sent when its event arrives.
func (s *Store) resumeBatch(ctx context.Context, condition string) (int64, error) {
	query := `
		WITH decided AS (
			SELECT m.id, ` + skips + ` AS skip
			FROM restores r JOIN messages m ON m.restore_id = r.id AND m.status = 'withheld',
				coalesce(m.occurred_at, m.created_at) AS occurred
			WHERE r.resumed_at IS NOT NULL AND (` + condition + `)
			LIMIT @limit
			FOR UPDATE OF m SKIP LOCKED
		)
		UPDATE messages m
		SET status = CASE WHEN skip THEN 'suppressed' WHEN event IS NULL THEN 'queued' ELSE 'deferred' END,
			next_attempt_at = CASE WHEN NOT skip AND event IS NOT NULL THEN @now::timestamptz END,
			event = CASE WHEN NOT skip THEN event END,
			last_error = CASE WHEN skip THEN 'suppressed by an operator after the database was restored' ELSE last_error END,
			updated_at = @now
		FROM decided
		WHERE m.id = decided.id`
	tag, err := s.db.Exec(ctx, query, pgx.StrictNamedArgs{"limit": withholdBatch, "now": s.now()})
	if err != nil {
		return 0, fmt.Errorf("resume withheld deliveries: %w", err)
	}
	return tag.RowsAffected(), nil
}
