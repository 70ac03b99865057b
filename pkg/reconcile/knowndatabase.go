package reconcile

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"
)

// known is what Redis and the producers know of this group's database.
type known struct {
	all    []knownConsumed
	posted []string // the producers that have posted since the check began
	absent []string // the others
	// current says that Redis still has what this process has posted last.
	current bool
}

// knownConsumed is a consumed watermark that a producer has in its database, or Redis.
type knownConsumed struct {
	producer string // "" for Redis
	ConsumedWatermark
}

// known reads what is known of the database.
func (c *Consumer) known(ctx context.Context, watermarks []Watermark) (known, error) {
	var k known
	data, err := c.cfg.Redis.HGet(ctx, consumedKey(c.cfg.Topic), c.cfg.Group).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		return known{}, fmt.Errorf("read consumed watermark of %s: %w", c.cfg.Topic, err)
	}
	var own ConsumedWatermark
	if err == nil && json.Unmarshal([]byte(data), &own) == nil {
		k.all = append(k.all, knownConsumed{"", own})
		last := c.poster.posted.Load()
		k.current = last != nil && own.covers(*last)
	}
	if c.reported == nil {
		c.reported = map[string]time.Time{}
		for _, w := range watermarks {
			c.reported[w.Producer] = w.At
		}
	}
	producers, err := c.producers(ctx)
	if err != nil {
		return known{}, err
	}
	for _, w := range watermarks {
		producers = append(producers, w.Producer)
		if !w.At.Equal(c.reported[w.Producer]) {
			k.posted = append(k.posted, w.Producer)
		}
		if consumed, ok := w.Consumers[c.cfg.Group]; ok {
			k.all = append(k.all, knownConsumed{w.Producer, consumed})
		}
	}
	slices.Sort(producers)
	k.absent = slices.DeleteFunc(slices.Compact(producers), func(p string) bool { return slices.Contains(k.posted, p) })
	return k, nil
}

// producers returns the producers of the topic that the release or the database knows.
func (c *Consumer) producers(ctx context.Context) ([]string, error) {
	const query = `SELECT producer FROM epoch_watermarks WHERE topic = $1 UNION SELECT unnest($2::text[])`
	rows, err := c.cfg.Database.Query(ctx, query, c.cfg.Topic, c.cfg.Producers)
	if err != nil {
		return nil, fmt.Errorf("read known producers of %s: %w", c.cfg.Topic, err)
	}
	producers, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("read known producers of %s: %w", c.cfg.Topic, err)
	}
	return producers, nil
}

// complete reports whether nobody can know more. Redis may be empty or an older copy, as
// the database may be. So each producer has to post again what its own database knows,
// unless Redis is current: a restart of Postgres alone does not make anything wait.
func (k known) complete() bool {
	return k.current || len(k.absent) == 0 && len(k.all)+len(k.posted) > 0
}

// tells reports whether some of the producers that were not compared have posted.
func (k known) tells(uncompared map[string]string) bool {
	return slices.ContainsFunc(k.posted, func(producer string) bool {
		_, ok := uncompared[producer]
		return ok
	})
}

// consumed returns the watermarks with which a database is to be compared: all, or those
// of the producers that were down when it was checked.
func (k known) consumed(s state) []knownConsumed {
	if !s.checked {
		return k.all
	}
	return slices.DeleteFunc(slices.Clone(k.all), func(w knownConsumed) bool {
		_, ok := s.uncompared[w.producer]
		return !ok || !slices.Contains(k.posted, w.producer)
	})
}
