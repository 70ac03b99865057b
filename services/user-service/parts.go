package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/pkg/service"
	"github.com/headgate/headgate/services/user-service/internal/profile"
	"github.com/headgate/headgate/services/user-service/internal/store"
)

// openBlobs opens the storage of avatars.
func openBlobs(ctx context.Context, cfg Config) (*store.Blobs, error) {
	address, err := cfg.blobs()
	if err != nil {
		return nil, fmt.Errorf("check config: BLOB_URL: %w", err)
	}
	blobs, err := store.OpenBlobs(ctx, address)
	if err != nil {
		return nil, fmt.Errorf("check config: BLOB_URL: %w", err)
	}
	return blobs, nil
}

// purgeEvery is how late an expired export may be deleted.
const purgeEvery = 10 * time.Minute

func purge(exports *profile.Exports, log *slog.Logger) service.Runner {
	return service.RunnerFunc(func(ctx context.Context) error {
		tick := time.NewTicker(purgeEvery)
		defer tick.Stop()
		for {
			if err := exports.Purge(ctx); err != nil && ctx.Err() == nil {
				log.WarnContext(ctx, "purge of exports failed; retrying", "next_in", purgeEvery.String(), "error", err.Error())
			}
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
			}
		}
	})
}

// remains counts what this service has about a user, for the erasure report.
func remains(ctx context.Context, cfg Config, db *postgres.Pool, userID string) (map[string]int, error) {
	client, err := cfg.Redis.Open(bus.EventTimeout)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	return store.Remains(ctx, db, client, userID)
}
