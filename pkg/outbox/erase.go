package outbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/pkg/service"
)

// QueueErasure requests that the personal data of a subject leave the outbox. An Eraser does
// that right after the transaction of batch: the relay may have locked the rows, and no
// deletion waits for Redis. Events of the subject that are added later are not affected.
func QueueErasure(batch *pgx.Batch, subject string) {
	const query = `
		INSERT INTO outbox_erasures (subject)
		VALUES ($1)
		ON CONFLICT (subject) DO NOTHING`
	batch.Queue(query, subject)
}

// RequestErasure is QueueErasure in a transaction of its own.
func RequestErasure(ctx context.Context, db *postgres.Pool, subject string) error {
	batch := &pgx.Batch{}
	QueueErasure(batch, subject)
	if err := db.SendBatch(ctx, batch).Close(); err != nil {
		return fmt.Errorf("request erasure: %w", err)
	}
	return nil
}

// Eraser removes the personal data of deleted subjects from the events in an outbox, whether
// published or not. The events keep their ids and sequence numbers, so nothing is missing,
// and an event that is published again does not bring the data back. Every instance of a
// service may run one. It is a service.Runner.
type Eraser struct {
	db  *postgres.Pool
	log *slog.Logger
}

const (
	eraseEvery = time.Second
	eraseBatch = 200
)

// NewEraser returns an eraser for the outbox in db.
func NewEraser(db *postgres.Pool, log *slog.Logger) *Eraser { return &Eraser{db, log} }

// Run implements service.Runner.
func (r *Eraser) Run(ctx context.Context) error {
	tick := time.NewTicker(eraseEvery)
	defer tick.Stop()
	outage := service.NewOutage(service.OutageConfig{
		Log: r.log, Failing: "erasure in the outbox failed; retrying", Over: "erasures in the outbox recovered",
	})
	for {
		err := r.eraseAll(ctx)
		if ctx.Err() == nil {
			outage.Record(ctx, "", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (r *Eraser) eraseAll(ctx context.Context) error {
	rows, err := r.db.Query(ctx, `SELECT subject FROM outbox_erasures ORDER BY requested_at`)
	if err != nil {
		return fmt.Errorf("read erasures: %w", err)
	}
	subjects, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("read erasures: %w", err)
	}
	var faults []error
	for _, subject := range subjects {
		faults = append(faults, r.erase(ctx, subject))
	}
	return errors.Join(faults...)
}

// erase erases what the outbox has of a subject. If another transaction has locked rows, the
// request stays for the next time.
func (r *Eraser) erase(ctx context.Context, subject string) error {
	const done = `
		DELETE FROM outbox_erasures
		WHERE subject = $1`
	locked, after := 0, int64(0)
	for {
		last, skipped, err := r.eraseRows(ctx, subject, after)
		if err != nil {
			return fmt.Errorf("erase events of a subject: %w", err)
		}
		locked += skipped
		if last == 0 {
			break
		}
		after = last
	}
	if locked > 0 {
		return nil
	}
	if _, err := r.db.Exec(ctx, done, subject); err != nil {
		return fmt.Errorf("finish erasure: %w", err)
	}
	return nil
}

// eraseRows erases the next rows of a subject after an id. It returns the last id, 0 if there
// are no more rows, and how many rows were locked.
func (r *Eraser) eraseRows(ctx context.Context, subject string, after int64) (last int64, locked int, err error) {
	const next = `
		SELECT id
		FROM outbox
		WHERE subject = $1 AND id > $2
		ORDER BY id
		LIMIT $3`
	const lock = `
		SELECT id, payload
		FROM outbox
		WHERE id = ANY($1)
		FOR UPDATE SKIP LOCKED`
	const erase = `
		UPDATE outbox
		SET payload = $2
		WHERE id = $1`
	err = r.db.Transact(ctx, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, next, subject, after, eraseBatch)
		if err != nil {
			return err
		}
		ids, err := pgx.CollectRows(rows, pgx.RowTo[int64])
		if err != nil || len(ids) == 0 {
			return err
		}
		last, locked = ids[len(ids)-1], len(ids)
		batch := &pgx.Batch{}
		batch.Queue(postgres.LimitLockWait)
		if rows, err = tx.Query(ctx, lock, ids); err != nil {
			return err
		}
		stored, err := pgx.CollectRows(rows, pgx.RowToStructByPos[storedEvent])
		if err != nil {
			return err
		}
		locked -= len(stored)
		for _, s := range stored {
			erased, changed, err := erasePayload(s.Payload)
			if err != nil {
				return err
			}
			if changed {
				batch.Queue(erase, s.ID, erased)
			}
		}
		return tx.SendBatch(ctx, batch).Close()
	})
	return last, locked, err
}

type storedEvent struct {
	ID      int64
	Payload []byte
}

func erasePayload(payload []byte) (erased []byte, changed bool, err error) {
	var e event.Event
	if err := json.Unmarshal(payload, &e); err != nil {
		return nil, false, fmt.Errorf("decode event: %w", err)
	}
	e, changed, err = event.Erase(e)
	if err != nil || !changed {
		return nil, false, err
	}
	erased, err = json.Marshal(e)
	return erased, true, err
}

// Remains counts the events of a subject that still have personal data. An Eraser removes
// those of a deleted subject within seconds.
func Remains(ctx context.Context, db *postgres.Pool, subject string) (int, error) {
	const query = `
		SELECT count(*)
		FROM outbox
		WHERE subject = $1
			AND (payload::jsonb->'data' ?| $2::text[]
				OR payload::jsonb#>>'{actor,id}' IS NOT DISTINCT FROM $1 AND payload::jsonb ?| ARRAY['ip', 'userAgent'])`
	var n int
	if err := db.QueryRow(ctx, query, subject, event.Personal()).Scan(&n); err != nil {
		return 0, fmt.Errorf("count events of a subject: %w", err)
	}
	return n, nil
}
