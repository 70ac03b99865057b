package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/services/user-service/internal/profile"
)

var _ profile.AvatarStore = (*Store)(nil)

// RegisterAvatar implements profile.AvatarStore.
func (s *Store) RegisterAvatar(ctx context.Context, name, userID string, at time.Time) error {
	const query = `INSERT INTO avatars (name, user_id, unused_since) VALUES ($1, $2, $3)`
	if _, err := s.db.Exec(ctx, query, name, userID, at); err != nil {
		return fmt.Errorf("register avatar: %w", err)
	}
	return nil
}

// Avatars implements profile.AvatarStore.
func (s *Store) Avatars(ctx context.Context, userID string) ([]string, error) {
	return s.names(ctx, `SELECT name FROM avatars WHERE user_id = $1`, userID)
}

// UnusedAvatars implements profile.AvatarStore.
func (s *Store) UnusedAvatars(ctx context.Context, before time.Time, limit int) ([]string, error) {
	const query = `SELECT name FROM avatars WHERE unused_since < $1 ORDER BY unused_since LIMIT $2`
	return s.names(ctx, query, before, limit)
}

// RegisteredAvatars implements profile.AvatarStore.
func (s *Store) RegisteredAvatars(ctx context.Context, names []string) ([]string, error) {
	return s.names(ctx, `SELECT name FROM avatars WHERE name = ANY($1)`, names)
}

// ReleaseAvatars implements profile.AvatarStore.
func (s *Store) ReleaseAvatars(ctx context.Context, names []string) error {
	if _, err := s.db.Exec(ctx, `DELETE FROM avatars WHERE name = ANY($1)`, names); err != nil {
		return fmt.Errorf("release avatars: %w", err)
	}
	return nil
}

// ClaimSweep implements profile.AvatarStore.
func (s *Store) ClaimSweep(ctx context.Context, now time.Time, interval time.Duration) (bool, error) {
	const query = `UPDATE avatar_sweep SET began_at = $1 WHERE began_at <= $2`
	claimed, err := s.db.Exec(ctx, query, now, now.Add(-interval))
	if err != nil {
		return false, fmt.Errorf("claim the sweep of avatars: %w", err)
	}
	return claimed.RowsAffected() > 0, nil
}

func (s *Store) names(ctx context.Context, query string, arguments ...any) ([]string, error) {
	rows, err := s.db.Query(ctx, query, arguments...)
	if err != nil {
		return nil, fmt.Errorf("list avatars: %w", err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("list avatars: %w", err)
	}
	return names, nil
}

// useAvatar marks the avatar of next as used and that of old as unused. It fails with
// profile.ErrNoAvatar if the new one is not registered any more: its pictures may be deleted.
func useAvatar(ctx context.Context, tx pgx.Tx, old, next profile.Profile) error {
	if old.Avatar == next.Avatar {
		return nil
	}
	if old.Avatar != "" {
		const query = `UPDATE avatars SET unused_since = $2 WHERE name = $1`
		if _, err := tx.Exec(ctx, query, old.Avatar, next.UpdatedAt); err != nil {
			return fmt.Errorf("release the old avatar: %w", err)
		}
	}
	if next.Avatar == "" {
		return nil
	}
	used, err := tx.Exec(ctx, `UPDATE avatars SET unused_since = NULL WHERE name = $1`, next.Avatar)
	if err != nil {
		return fmt.Errorf("use the avatar: %w", err)
	}
	if used.RowsAffected() == 0 {
		return fmt.Errorf("use the avatar: %w", profile.ErrNoAvatar)
	}
	return nil
}
