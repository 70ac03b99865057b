// Package store keeps profiles in Postgres and caches them in Redis. A change and its
// events share a transaction.
package store

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/outbox"
	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/services/user-service/internal/profile"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Schema returns the migrations of this store.
func Schema() postgres.Schema { return postgres.NewSchema("user", migrations, "migrations") }

// Store implements profile.Store.
type Store struct {
	Replicas *Replicas // of which the directory is read; set before the store is used, or nil

	db  *postgres.Pool
	box *outbox.Box
}

var _ profile.Store = (*Store)(nil)

// New returns a store on db, which must have Schema and outbox.Schema.
func New(db *postgres.Pool, box *outbox.Box) *Store { return &Store{db: db, box: box} }

const columns = `user_id::text, email, name, bio, locale, timezone, avatar, preferences, version, created_at, updated_at, ` + accountVersion

// accountVersion is that of the address. The previous release reads and writes email_at alone,
// which is the version as a time.
const accountVersion = `GREATEST(profiles.account_version, (extract(epoch FROM profiles.email_at) * 1000000)::bigint)`

func scan(row pgx.CollectableRow) (profile.Profile, error) { return scanWith(row) }

// scanWith scans the columns and others behind them.
func scanWith(row pgx.CollectableRow, others ...any) (profile.Profile, error) {
	var p profile.Profile
	err := row.Scan(append([]any{
		&p.UserID, &p.Email, &p.Name, &p.Bio, &p.Locale, &p.Timezone, &p.Avatar, &p.Preferences,
		&p.Version, &p.CreatedAt, &p.UpdatedAt, &p.AccountVersion,
	}, others...)...)
	p.CreatedAt, p.UpdatedAt = p.CreatedAt.UTC(), p.UpdatedAt.UTC()
	return p, err
}

func one(rows pgx.Rows, err error) (profile.Profile, error) {
	if err != nil {
		return profile.Profile{}, err
	}
	p, err := pgx.CollectExactlyOneRow(rows, scan)
	if errors.Is(err, pgx.ErrNoRows) {
		return p, profile.ErrNotFound
	}
	return p, err
}

// Get implements profile.Store.
func (s *Store) Get(ctx context.Context, userID string) (profile.Profile, error) {
	const query = `SELECT ` + columns + `, deleted_at IS NOT NULL FROM profiles WHERE user_id = $1`
	rows, err := s.db.Query(ctx, query, userID)
	if err != nil {
		return profile.Profile{}, fmt.Errorf("get profile: %w", err)
	}
	var erased bool
	p, err := pgx.CollectExactlyOneRow(rows, func(row pgx.CollectableRow) (profile.Profile, error) { return scanWith(row, &erased) })
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		err = profile.ErrNotFound
	case err == nil && erased:
		err = profile.ErrErased
	}
	if err != nil {
		return profile.Profile{}, fmt.Errorf("get profile: %w", err)
	}
	return p, nil
}

const insert = `
	INSERT INTO profiles (user_id, email, name, preferences, version, created_at, updated_at, account_version)
	VALUES (@user_id, @email, @name, @preferences, @version, @created_at, @updated_at, @account_version)
	ON CONFLICT (user_id) `

func arguments(p profile.Profile) pgx.StrictNamedArgs {
	return pgx.StrictNamedArgs{
		"user_id": p.UserID, "email": p.Email, "name": p.Name, "preferences": p.Preferences, "version": p.Version,
		"created_at": p.CreatedAt, "updated_at": p.UpdatedAt, "account_version": p.AccountVersion,
	}
}

// Seed implements profile.Store.
func (s *Store) Seed(ctx context.Context, p profile.Profile) (profile.Profile, error) {
	if _, err := s.db.Exec(ctx, insert+`DO NOTHING`, arguments(p)); err != nil {
		return profile.Profile{}, fmt.Errorf("seed profile: %w", err)
	}
	return s.Get(ctx, p.UserID)
}

// Project implements profile.Store.
func (s *Store) Project(ctx context.Context, p profile.Profile) (version int64, err error) {
	const merge = `DO UPDATE
	SET email = COALESCE(NULLIF(profiles.email, ''), excluded.email),
		name = COALESCE(NULLIF(profiles.name, ''), excluded.name),
		created_at = LEAST(profiles.created_at, excluded.created_at),
		version = profiles.version + CASE
			WHEN profiles.created_at > excluded.created_at OR profiles.email = '' AND excluded.email <> ''
				OR profiles.name = '' AND excluded.name <> ''
			THEN 1 ELSE 0 END
	WHERE profiles.deleted_at IS NULL
	RETURNING version`
	err = s.db.QueryRow(ctx, insert+merge, arguments(p)).Scan(&version)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, nil // The profile was deleted.
	}
	if err != nil {
		return 0, fmt.Errorf("project profile: %w", err)
	}
	return version, nil
}

// SetEmail implements profile.Store.
func (s *Store) SetEmail(ctx context.Context, p profile.Profile) (version int64, err error) {
	const insertOrChange = `
		INSERT INTO profiles (user_id, email, name, preferences, version, created_at, updated_at, email_at, account_version)
		VALUES (@user_id, @email, @name, @preferences, @version, @created_at, @updated_at, timestamptz 'epoch' + @account_version * interval '1 microsecond', @account_version)
		ON CONFLICT (user_id) DO UPDATE
		SET email = excluded.email, email_at = excluded.email_at, account_version = excluded.account_version,
			version = profiles.version + 1, updated_at = excluded.updated_at
		WHERE profiles.deleted_at IS NULL
			AND ` + accountVersion + ` < excluded.account_version
		RETURNING version`
	err = s.db.QueryRow(ctx, insertOrChange, arguments(p)).Scan(&version)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("set the address of a profile: %w", err)
	}
	return version, nil
}

// Erase implements profile.Store.
func (s *Store) Erase(ctx context.Context, userID string, at time.Time) (version int64, err error) {
	const query = `
		INSERT INTO profiles (user_id, email, name, version, created_at, updated_at, deleted_at)
		VALUES ($1, '', '', 1, $2, $2, $2)
		ON CONFLICT (user_id) DO UPDATE
		SET email = '', name = '', bio = '', locale = '', timezone = '', avatar = '', avatar_url = '', preferences = '{}',
			version = profiles.version + 1, updated_at = $2, deleted_at = $2
		RETURNING version`
	const releaseAvatars = `UPDATE avatars SET unused_since = $2 WHERE user_id = $1 AND unused_since IS NULL`
	const eraseExport = `DELETE FROM exports WHERE user_id = $1`
	batch := &pgx.Batch{}
	batch.Queue(query, userID, at).QueryRow(func(row pgx.Row) error { return row.Scan(&version) })
	batch.Queue(releaseAvatars, userID, at)
	batch.Queue(eraseExport, userID)
	if err := s.db.SendBatch(ctx, batch).Close(); err != nil {
		return 0, fmt.Errorf("erase profile: %w", err)
	}
	return version, nil
}

// Update implements profile.Store.
func (s *Store) Update(ctx context.Context, userID string, update func(profile.Profile) (profile.Profile, []event.Event, error)) (profile.Profile, error) {
	const read = `SELECT ` + columns + ` FROM profiles WHERE user_id = $1 AND deleted_at IS NULL FOR UPDATE`
	const write = `
		UPDATE profiles
		SET name = @name, bio = @bio, locale = @locale, timezone = @timezone, avatar = @avatar, preferences = @preferences,
			version = @version, updated_at = @updated_at
		WHERE user_id = @user_id`
	var next profile.Profile
	err := s.db.Transact(ctx, func(tx pgx.Tx) error {
		old, err := one(tx.Query(ctx, read, userID))
		if err != nil {
			return err
		}
		var events []event.Event
		if next, events, err = update(old); err != nil || len(events) == 0 {
			return err
		}
		if err := useAvatar(ctx, tx, old, next); err != nil {
			return err
		}
		batch := &pgx.Batch{}
		batch.Queue(write, pgx.StrictNamedArgs{
			"user_id": userID, "name": next.Name, "bio": next.Bio, "locale": next.Locale, "timezone": next.Timezone,
			"avatar": next.Avatar, "preferences": next.Preferences, "version": next.Version, "updated_at": next.UpdatedAt,
		})
		if err := s.box.Queue(batch, events...); err != nil {
			return err
		}
		return tx.SendBatch(ctx, batch).Close()
	})
	if err != nil {
		return profile.Profile{}, fmt.Errorf("update profile: %w", err)
	}
	return next, nil
}
