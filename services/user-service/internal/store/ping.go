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
	if err := c.client.HDel(ctx, registryKey, "ping").Err(); err != nil {
		return fmt.Errorf("reach the instances with a profile cache: %w", err)
	}
	return nil
}
