package store

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/services/auth-service/internal/account"
)

// CeremonyFinished implements account.Store.
func (s *Store) CeremonyFinished(ctx context.Context, id string) (bool, error) {
	const query = `SELECT EXISTS (SELECT FROM finished_ceremonies WHERE id = $1)`
	var finished bool
	if err := s.db.QueryRow(ctx, query, id).Scan(&finished); err != nil {
		return false, fmt.Errorf("look up ceremony: %w", err)
	}
	return finished, nil
}

func queueFinishedCeremony(batch *pgx.Batch, c *account.FinishedCeremony) {
	const query = `
		INSERT INTO finished_ceremonies (id, expires_at)
		VALUES ($1, $2)`
	if c != nil {
		batch.Queue(query, c.ID, c.ExpiresAt)
	}
}
