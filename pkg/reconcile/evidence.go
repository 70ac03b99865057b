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

// evidence is what Redis and the producers know of this group's database.
type evidence struct {
	consumed []echo
	posted   []string // the producers that have posted since the check began
	absent   []string // the others
	// current says that Redis still has what this process has posted last. Then nobody
	// knows more.
	current bool
}

// echo is a consumed watermark of this group as a producer has stored it, or Redis.
type echo struct {
	producer string // "" for Redis
	ConsumedWatermark
}

// complete reports whether nothing has to be waited for. Redis may be empty or an older
// copy, as the database may be, so each producer has to post again what its own database
// knows. A restart of Postgres alone does not make anything wait, because Redis is current.
func (e evidence) complete() bool {
	return e.current || len(e.absent) == 0 && len(e.consumed)+len(e.posted) > 0
}

// evidence returns what is known of a database that is not checked. For one that is
// checked, it returns what the producers know that were down then and are back.
func (c *Consumer) evidence(ctx context.Context, watermarks []Watermark, s state) (evidence, error) {
	if c.reported == nil {
		c.reported = map[string]time.Time{}
		for _, w := range watermarks {
			c.reported[w.Producer] = w.At
		}
	}
	if s.checked {
		return c.lateEvidence(watermarks, s), nil
	}
	var e evidence
	data, err := c.cfg.Redis.HGet(ctx, consumedKey(c.cfg.Topic), c.cfg.Group).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		return evidence{}, fmt.Errorf("read consumed watermark of %s: %w", c.cfg.Topic, err)
	}
	var own ConsumedWatermark
	if err == nil && json.Unmarshal([]byte(data), &own) == nil {
		e.consumed = append(e.consumed, echo{"", own})
		last := c.poster.posted.Load()
		e.current = last != nil && own.covers(*last)
	}
	producers, err := c.producers(ctx)
	if err != nil {
		return evidence{}, err
	}
	for _, w := range watermarks {
		producers = append(producers, w.Producer)
		if !w.At.Equal(c.reported[w.Producer]) {
			e.posted = append(e.posted, w.Producer)
		}
		e.add(w, c.cfg.Group)
	}
	if !e.current {
		slices.Sort(producers)
		e.absent = slices.DeleteFunc(slices.Compact(producers), func(p string) bool { return slices.Contains(e.posted, p) })
	}
	return e, nil
}

// lateEvidence returns what producers know that have answered the check of the database.
// Only such a watermark was written after the producer knew that it must keep what it has
// stored; another one may come from an older copy of Redis. A producer of the previous
// release answers no check.
func (c *Consumer) lateEvidence(watermarks []Watermark, s state) evidence {
	var e evidence
	for _, w := range watermarks {
		answers := w.Checks[c.cfg.Group] == s.database
		if w.Checks == nil {
			answers = !w.At.Equal(c.reported[w.Producer])
		}
		if _, late := s.uncompared[w.Producer]; late && answers {
			e.posted = append(e.posted, w.Producer)
			e.add(w, c.cfg.Group)
		}
	}
	return e
}

func (e *evidence) add(w Watermark, group string) {
	if consumed, ok := w.Consumers[group]; ok {
		e.consumed = append(e.consumed, echo{w.Producer, consumed})
	}
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
