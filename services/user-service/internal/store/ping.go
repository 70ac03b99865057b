package store

import (
	"context"
	"fmt"
)

// Ping returns an error while Redis accepts no invalidation.
func (c *Cache) Ping(ctx context.Context) error {
	if err := c.client.Del(ctx, keyPrefix+"ping").Err(); err != nil {
		return fmt.Errorf("delete from the profile cache: %w", err)
	}
	return nil
}
