package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/services/user-service/internal/profile"
)

var _ profile.ExportStore = (*Store)(nil)

// RecordExport implements profile.ExportStore.
func (s *Store) RecordExport(ctx context.Context, e event.Event) error {
	err := s.db.Transact(ctx, func(tx pgx.Tx) error { return s.box.Add(ctx, tx, e) })
	if err != nil {
		return fmt.Errorf("record export: %w", err)
	}
	return nil
}

// SaveExport implements profile.ExportStore.
func (s *Store) SaveExport(ctx context.Context, e profile.StoredExport, events ...event.Event) error {
	const replace = `
		INSERT INTO exports (user_id, key, data, created_at, expires_at)
		SELECT $1, $2, $3, $4, $5
		WHERE NOT EXISTS (SELECT FROM profiles WHERE user_id = $1 AND deleted_at IS NOT NULL)
		ON CONFLICT (user_id) DO UPDATE
		SET key = excluded.key, data = excluded.data, created_at = excluded.created_at, expires_at = excluded.expires_at`
	err := s.db.Transact(ctx, func(tx pgx.Tx) error {
		// The profile's lock orders this and its erasure.
		if _, err := tx.Exec(ctx, `SELECT FROM profiles WHERE user_id = $1 FOR SHARE`, e.UserID); err != nil {
			return err
		}
		batch := &pgx.Batch{}
		batch.Queue(replace, e.UserID, e.Key, e.Data, e.CreatedAt, e.ExpiresAt)
		if err := s.box.Queue(batch, events...); err != nil {
			return err
		}
		return tx.SendBatch(ctx, batch).Close()
	})
	if err != nil {
		return fmt.Errorf("save export: %w", err)
	}
	return nil
}

// Export implements profile.ExportStore.
func (s *Store) Export(ctx context.Context, key []byte, now time.Time) ([]byte, error) {
	const query = `SELECT data FROM exports WHERE key = $1 AND expires_at > $2`
	var data []byte
	err := s.db.QueryRow(ctx, query, key, now).Scan(&data)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, profile.ErrExportExpired
	}
	if err != nil {
		return nil, fmt.Errorf("read export: %w", err)
	}
	return data, nil
}

// PurgeExports implements profile.ExportStore.
func (s *Store) PurgeExports(ctx context.Context, now time.Time) error {
	if _, err := s.db.Exec(ctx, `DELETE FROM exports WHERE expires_at <= $1`, now); err != nil {
		return fmt.Errorf("purge exports: %w", err)
	}
	return nil
}
