package reconcile

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/postgres"
)

// fileSQL names the file of database_checks. The file is compared besides the
// incarnation: a restore into a running database keeps the incarnation, but gives the
// table another file.
const fileSQL = `pg_relation_filenode('database_checks'::regclass)`

// databaseSQL names the database, in this incarnation and with this file.
const databaseSQL = `(` + postgres.IncarnationSQL + ` || '/' || ` + fileSQL + `)`

// errReplaced ends a round: what it has read is no longer true.
var errReplaced = errors.New("the database was replaced")

// sameDatabase returns errReplaced if the database is another one than the named one,
// with which a round began. A round calls it before it tells others what it has read.
func sameDatabase(ctx context.Context, db postgres.Querier, name string) error {
	var same bool
	if err := db.QueryRow(ctx, `SELECT `+databaseSQL+` = $1`, name).Scan(&same); err != nil {
		return fmt.Errorf("identify the database: %w", err)
	}
	if !same {
		return errReplaced
	}
	return nil
}

// CheckedSQL returns an SQL condition for the database of a consumer of topic. It is
// true once the consumer has found that the database is no older copy, or has called
// Restored for one. Work that starts from the consumer's own tables, not from a
// message, waits for it.
func CheckedSQL(topic event.Topic) string {
	return `EXISTS (SELECT FROM checked_databases WHERE topic = '` + string(topic) + `' AND incarnation = ` + postgres.IncarnationSQL + `)`
}

// check compares this database with what Redis and the producers know of it, if it may
// have been replaced since it was last compared. If it turns out to be an older copy,
// check calls Restored, once in all instances, and starts a new generation. It reports
// whether the database is checked.
func (c *Consumer) check(ctx context.Context, watermarks []Watermark, position bus.Position) (bool, error) {
	query := `SELECT ` + CheckedSQL(c.cfg.Topic) + `,
			array(SELECT generation FROM consumer_generations WHERE topic = $1 ORDER BY started_at), ` + databaseSQL
	var checked bool
	var generations []string
	var database string
	if err := c.cfg.Database.QueryRow(ctx, query, c.cfg.Topic).Scan(&checked, &generations, &database); err != nil {
		return false, fmt.Errorf("read database check: %w", err)
	}
	if database != c.database {
		c.poster.checked.Store(nil)
		c.memory = newMemory(database)
	}
	if checked && len(generations) > 0 {
		c.generation = generations[len(generations)-1]
		c.poster.checked.Store(&checkedDatabase{c.database, c.generation})
		return true, nil
	}
	known, complete, err := c.known(ctx, watermarks)
	if err != nil {
		return false, err
	}
	if !complete && time.Since(c.since) < producersTimeout(watermarks) {
		return false, nil
	}
	var handled *Handled
	err = pgx.BeginFunc(ctx, c.cfg.Database, func(tx pgx.Tx) error {
		var locked bool
		if err := tx.QueryRow(ctx, `SELECT pg_try_advisory_xact_lock($1)`, c.checkLock()).Scan(&locked); err != nil {
			return err
		}
		if !locked {
			return errCheckedElsewhere
		}
		// Another instance may have finished between the two reads.
		if err := tx.QueryRow(ctx, query, c.cfg.Topic).Scan(&checked, &generations, &database); err != nil || checked && len(generations) > 0 {
			return err
		}
		handled, err = c.decide(ctx, tx, generations, known, position)
		return err
	})
	if errors.Is(err, errCheckedElsewhere) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("check the database: %w", err)
	}
	if handled != nil {
		c.cfg.Log.ErrorContext(ctx, "database is an older copy; requesting what it lacks",
			"topic", string(c.cfg.Topic), "handled_until", handled.Until.UTC().Format(time.RFC3339))
		c.metrics.restored.WithLabelValues(string(c.cfg.Topic)).Inc()
	}
	return false, nil // The next round reads the generation.
}

var errCheckedElsewhere = errors.New("another instance checks the database")

func (c *Consumer) checkLock() int64 {
	h := fnv.New64a()
	h.Write([]byte("checked_databases " + c.cfg.Topic)) // It never fails.
	return int64(h.Sum64() >> 1)
}

// producersTimeout is how long a check waits for watermarks that the producers have
// posted since it began. It goes on without the producers that are gone.
func producersTimeout(watermarks []Watermark) time.Duration {
	timeout := time.Minute
	for _, w := range watermarks {
		timeout = max(timeout, 2*w.Interval)
	}
	return timeout
}

// known returns the consumed watermarks of this group that Redis and the producers have.
// Redis may be empty or an older copy, as the database may be. So it is not complete
// before each producer has posted again what its own database knows. It is complete at
// once if Redis still has what this process has posted last: a restart of Postgres alone
// does not make anything wait.
func (c *Consumer) known(ctx context.Context, watermarks []Watermark) (known []ConsumedWatermark, complete bool, err error) {
	data, err := c.cfg.Redis.HGet(ctx, consumedKey(c.cfg.Topic), c.cfg.Group).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		return nil, false, fmt.Errorf("read consumed watermark of %s: %w", c.cfg.Topic, err)
	}
	var own ConsumedWatermark
	found := err == nil && json.Unmarshal([]byte(data), &own) == nil
	if found {
		known = append(known, own)
	}
	if c.reported == nil {
		c.reported = map[string]time.Time{}
		for _, w := range watermarks {
			c.reported[w.Producer] = w.At
		}
	}
	posted, again := []string{}, true
	for _, w := range watermarks {
		posted = append(posted, w.Producer)
		again = again && !w.At.Equal(c.reported[w.Producer])
		if echo, ok := w.Consumers[c.cfg.Group]; ok {
			known = append(known, echo)
		}
	}
	if last := c.poster.posted.Load(); found && last != nil && own.covers(*last) {
		return known, true, nil
	}
	const absent = `SELECT EXISTS (SELECT FROM epoch_watermarks WHERE topic = $1 AND producer <> ALL($2::text[]))`
	var some bool
	if err := c.cfg.Database.QueryRow(ctx, absent, c.cfg.Topic, posted).Scan(&some); err != nil {
		return nil, false, fmt.Errorf("read known producers of %s: %w", c.cfg.Topic, err)
	}
	return known, again && !some && (found || len(posted) > 0), nil
}

// decide stores that the database is checked. If it is an older copy, decide calls
// Restored first, and returns what the lost database had handled.
func (c *Consumer) decide(ctx context.Context, tx pgx.Tx, generations []string, known []ConsumedWatermark, position bus.Position) (*Handled, error) {
	own, err := consumedIn(ctx, tx, c.cfg.Topic)
	if err != nil {
		return nil, err
	}
	var handled *Handled // nil if the database is no older copy
	for _, k := range known {
		if olderThan(own, generations, k) {
			if handled == nil {
				handled = &Handled{Numbers: map[string]map[string]int64{}}
			}
			handled.add(k)
		}
	}
	if handled != nil {
		handled.Until = latest(handled.Until, position.HandledUntil)
		if c.cfg.Restored != nil {
			if err := c.cfg.Restored(ctx, *handled); err != nil {
				return nil, fmt.Errorf("prepare the restored database: %w", err)
			}
		}
	}
	if handled != nil || len(generations) == 0 {
		const start = `INSERT INTO consumer_generations (topic, generation) VALUES ($1, $2)`
		if _, err := tx.Exec(ctx, start, c.cfg.Topic, rand.Text()); err != nil {
			return nil, err
		}
	}
	const checked = `
		INSERT INTO database_checks (topic, incarnation, file) VALUES ($1, ` + postgres.IncarnationSQL + `, ` + fileSQL + `)
		ON CONFLICT (topic) DO UPDATE SET incarnation = excluded.incarnation, file = excluded.file, checked_at = now()`
	_, err = tx.Exec(ctx, checked, c.cfg.Topic)
	return handled, err
}

// olderThan reports whether a database is older than what was known of it: it does not
// know the generation, or has consumed less in it. An earlier generation says nothing.
func olderThan(own map[string]map[string]Consumed, generations []string, known ConsumedWatermark) bool {
	if !slices.Contains(generations, known.Generation) {
		return true
	}
	if known.Generation != generations[len(generations)-1] {
		return false
	}
	return lacks(own, known.Producers)
}

func latest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
