package reconcile

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

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

// state is what a database says of the comparison of itself.
type state struct {
	database    string // in terms of databaseSQL
	checked     bool
	generations []string          // the current one is the last
	uncompared  map[string]string // the generation before the check, by producer
}

func readState(ctx context.Context, db postgres.Querier, topic event.Topic) (s state, err error) {
	query := `SELECT ` + databaseSQL + `, ` + CheckedSQL(topic) + `,
			array(SELECT generation FROM consumer_generations WHERE topic = $1 ORDER BY started_at)`
	if err := db.QueryRow(ctx, query, topic).Scan(&s.database, &s.checked, &s.generations); err != nil {
		return state{}, fmt.Errorf("read database check: %w", err)
	}
	s.checked = s.checked && len(s.generations) > 0
	s.uncompared, err = uncomparedProducers(ctx, db, topic)
	return s, err
}

func (s state) generation() string {
	if len(s.generations) == 0 {
		return ""
	}
	return s.generations[len(s.generations)-1]
}

// uncomparedProducers returns the producers that have not yet told what they know of a
// checked database, with its generation before the check.
func uncomparedProducers(ctx context.Context, db postgres.Querier, topic event.Topic) (map[string]string, error) {
	rows, err := db.Query(ctx, `SELECT producer, generation FROM uncompared_producers WHERE topic = $1`, topic)
	if err != nil {
		return nil, fmt.Errorf("read producers that were not compared: %w", err)
	}
	uncompared := map[string]string{}
	var producer, generation string
	if _, err := pgx.ForEachRow(rows, []any{&producer, &generation}, func() error {
		uncompared[producer] = generation
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read producers that were not compared: %w", err)
	}
	return uncompared, nil
}

// check compares this database with what Redis and the producers know of it, if it may
// have been replaced since it was last compared. If it turns out to be an older copy,
// check calls Restored, once in all instances, and starts a new generation. A producer
// that is down then is compared as soon as it posts. check reports whether the database
// is checked.
func (c *Consumer) check(ctx context.Context, watermarks []Watermark, position bus.Position) (bool, error) {
	s, err := readState(ctx, c.cfg.Database, c.cfg.Topic)
	if err != nil {
		return false, err
	}
	if s.database != c.database {
		c.poster.checked.Store(nil)
		c.memory = newMemory(s.database)
	}
	if s.checked {
		c.generation, c.uncompared = s.generation(), s.uncompared
		c.poster.checked.Store(&checkedDatabase{c.database, c.generation, len(c.uncompared) > 0})
		if len(s.uncompared) == 0 {
			return true, nil
		}
	}
	known, err := c.known(ctx, watermarks)
	if err != nil {
		return false, err
	}
	if s.checked && !known.tells(s.uncompared) {
		return true, nil
	}
	if !s.checked && !known.complete() && time.Since(c.since) < c.producersTimeout(watermarks) {
		return false, nil
	}
	handled, err := c.compareDatabase(ctx, s.checked, known, position)
	if errors.Is(err, errCheckedElsewhere) {
		return s.checked, nil
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

// compareDatabase stores what is known of the database. checked says whether it was
// checked before, without some of the producers. handled is nil if the database is no
// older copy.
func (c *Consumer) compareDatabase(ctx context.Context, checked bool, known known, position bus.Position) (handled *Handled, err error) {
	err = pgx.BeginFunc(ctx, c.cfg.Database, func(tx pgx.Tx) error {
		var locked bool
		if err := tx.QueryRow(ctx, `SELECT pg_try_advisory_xact_lock($1)`, c.checkLock()).Scan(&locked); err != nil {
			return err
		}
		if !locked {
			return errCheckedElsewhere
		}
		// Another instance may have finished between the two reads.
		s, err := readState(ctx, tx, c.cfg.Topic)
		if err != nil {
			return err
		}
		if s.checked != checked || s.checked && !known.tells(s.uncompared) {
			return errCheckedElsewhere
		}
		handled, err = c.decide(ctx, tx, s, known, position)
		return err
	})
	return handled, err
}

var errCheckedElsewhere = errors.New("another instance checks the database")

func (c *Consumer) checkLock() int64 {
	h := fnv.New64a()
	h.Write([]byte("checked_databases " + c.cfg.Topic)) // It never fails.
	return int64(h.Sum64() >> 1)
}

// producersTimeout is how long a check waits for the producers: at least two of the intervals at
// which they post.
func (c *Consumer) producersTimeout(watermarks []Watermark) time.Duration {
	timeout := c.cfg.ProducersTimeout
	for _, w := range watermarks {
		timeout = max(timeout, 2*w.Interval)
	}
	return timeout
}

// decide stores that the database is checked. If it is an older copy, decide calls
// Restored first, and returns what the lost database had handled.
func (c *Consumer) decide(ctx context.Context, tx pgx.Tx, s state, known known, position bus.Position) (*Handled, error) {
	own, err := consumedIn(ctx, tx, c.cfg.Topic)
	if err != nil {
		return nil, err
	}
	var handled *Handled // nil if the database is no older copy
	for _, k := range known.consumed(s) {
		if s.olderThan(own, k) {
			if handled == nil {
				handled = &Handled{Numbers: map[string]map[string]int64{}}
			}
			handled.add(k.ConsumedWatermark)
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
	batch := &pgx.Batch{}
	if handled != nil || len(s.generations) == 0 {
		batch.Queue(`INSERT INTO consumer_generations (topic, generation) VALUES ($1, $2)`, c.cfg.Topic, rand.Text())
	}
	if !s.checked {
		const checked = `
			INSERT INTO database_checks (topic, incarnation, file) VALUES ($1, ` + postgres.IncarnationSQL + `, ` + fileSQL + `)
			ON CONFLICT (topic) DO UPDATE SET incarnation = excluded.incarnation, file = excluded.file, checked_at = now()`
		const absent = `
			INSERT INTO uncompared_producers (topic, producer, generation) SELECT $1, unnest($2::text[]), $3
			ON CONFLICT (topic, producer) DO NOTHING`
		batch.Queue(checked, c.cfg.Topic)
		batch.Queue(absent, c.cfg.Topic, known.absent, s.generation())
	}
	batch.Queue(`DELETE FROM uncompared_producers WHERE topic = $1 AND producer = ANY($2)`, c.cfg.Topic, known.posted)
	return handled, tx.SendBatch(ctx, batch).Close()
}

// olderThan reports whether a database that has consumed own is older than what was known
// of it: it does not know the generation, or has consumed less in it. An earlier
// generation says nothing, unless it was the last one before a check without the producer.
func (s state) olderThan(own map[string]map[string]Consumed, known knownConsumed) bool {
	if !slices.Contains(s.generations, known.Generation) {
		return true
	}
	before, uncompared := s.uncompared[known.producer]
	if known.Generation != s.generation() && !(uncompared && known.Generation == before) {
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
