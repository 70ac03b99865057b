package realtime

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/event"
)

// Lag says how far a consumer group is behind.
type Lag struct {
	Stream  string `json:"stream"`
	Group   string `json:"group"`
	Unread  int64  `json:"unread"`  // -1 if Redis does not know
	Pending int64  `json:"pending"` // read and not acknowledged
}

// Redis is the Source in Redis.
type Redis struct{ client redis.UniversalClient }

// NewRedis returns the source that client reads.
func NewRedis(client redis.UniversalClient) Redis { return Redis{client} }

var _ Source = Redis{}

// epochKey has a random value that no gateway changes. It is lost with all other data.
const epochKey = "realtime:epoch"

// Epoch implements Source.
func (r Redis) Epoch(ctx context.Context) (string, error) {
	for {
		epoch, err := r.client.Get(ctx, epochKey).Result()
		if err == nil && epochForm.MatchString(epoch) {
			return epoch, nil
		}
		if err != nil && !errors.Is(err, redis.Nil) {
			return "", fmt.Errorf("read the epoch: %w", err)
		}
		random := make([]byte, 8)
		_, _ = rand.Read(random) // It never fails.
		fresh := hex.EncodeToString(random)
		if err == nil { // The value is not one of ours.
			err = r.client.Set(ctx, epochKey, fresh, 0).Err()
		} else {
			err = r.client.SetNX(ctx, epochKey, fresh, 0).Err()
		}
		if err != nil {
			return "", fmt.Errorf("set the epoch: %w", err)
		}
	}
}

// Lags implements Source.
func (r Redis) Lags(ctx context.Context) ([]Lag, error) {
	all := []Lag{}
	for _, topic := range event.Topics() {
		groups, err := r.client.XInfoGroups(ctx, string(topic)).Result()
		if redis.HasErrorPrefix(err, "no such key") {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("inspect %s: %w", topic, err)
		}
		for _, g := range groups {
			all = append(all, Lag{Stream: string(topic), Group: g.Name, Unread: g.Lag, Pending: g.Pending})
		}
	}
	return all, nil
}
