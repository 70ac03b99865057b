package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/services/auth-service/internal/account"
)

// queueRevocation uses the clock of Postgres, and so do the readers: the clocks of two
// processes may differ by more than the time that a snapshot covers.
func queueRevocation(batch *pgx.Batch, s account.Session) {
	const query = `
		INSERT INTO revocations (session_id, revoked_at)
		VALUES ($1, now())
		ON CONFLICT (session_id) DO NOTHING`
	batch.Queue(query, s.ID)
}

// RevokeBefore implements account.Store.
func (s *Store) RevokeBefore(ctx context.Context, before time.Time, e event.Event) error {
	const query = `
		INSERT INTO revoked_before (before)
		VALUES ($1)
		ON CONFLICT (single) DO UPDATE
		SET before = GREATEST(revoked_before.before, excluded.before)`
	batch := &pgx.Batch{}
	batch.Queue(query, before)
	if err := s.send(ctx, batch, e); err != nil {
		return fmt.Errorf("revoke all sessions: %w", err)
	}
	return nil
}

// Revocations implements account.Store and is a token.LoadSnapshot.
func (s *Store) Revocations(ctx context.Context, since time.Time) (token.Snapshot, error) {
	const now = `SELECT now(), (SELECT before FROM revoked_before)`
	const query = `
		SELECT session_id::text, revoked_at
		FROM revocations
		WHERE revoked_at > $1`
	var before *time.Time
	snapshot := token.Snapshot{Revocations: []token.Revocation{}}
	// Read the time first, so that the next snapshot has the revocations committed in between.
	if err := s.db.QueryRow(ctx, now).Scan(&snapshot.AsOf, &before); err != nil {
		return token.Snapshot{}, fmt.Errorf("list revocations: %w", err)
	}
	if before != nil {
		snapshot.Before = *before
	}
	if oldest := snapshot.AsOf.Add(-token.MaxLifetime - time.Minute); since.Before(oldest) {
		since = oldest
	}
	rows, err := s.db.Query(ctx, query, since)
	if err != nil {
		return token.Snapshot{}, fmt.Errorf("list revocations: %w", err)
	}
	snapshot.Revocations, err = pgx.AppendRows(snapshot.Revocations, rows, func(row pgx.CollectableRow) (token.Revocation, error) {
		var r token.Revocation
		err := row.Scan(&r.SessionID, &r.At)
		return r, err
	})
	if err != nil {
		return token.Snapshot{}, fmt.Errorf("list revocations: %w", err)
	}
	return snapshot, nil
}
