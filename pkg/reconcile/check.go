package reconcile

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"reflect"
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
// true once every producer's knowledge of the database was compared, and Restored was
// called if the database was an older copy. Work that starts from the consumer's own
// tables, not from a message, waits for it; so does work that must not be done twice.
func CheckedSQL(topic event.Topic) string {
	return `(` + partlyCheckedSQL(topic) + ` AND NOT EXISTS (SELECT FROM uncompared_producers WHERE topic = '` + string(topic) + `'))`
}

// partlyCheckedSQL is true also while producers are missing that were down.
func partlyCheckedSQL(topic event.Topic) string {
	return `EXISTS (SELECT FROM checked_databases WHERE topic = '` + string(topic) + `' AND incarnation = ` + postgres.IncarnationSQL + `)`
}

// state is what a database says of its own check.
type state struct {
	database    string // in terms of databaseSQL
	checked     bool   // perhaps without some producers
	generations []string
	uncompared  map[string]beforeCheck // by producer
}

// beforeCheck is what a database was before it was checked without a producer.
type beforeCheck struct {
	generation string              // "" if it had none
	consumed   map[string]Consumed // of the producer's events, by epoch
}

func readState(ctx context.Context, db postgres.Querier, topic event.Topic) (s state, err error) {
	query := `SELECT ` + databaseSQL + `, ` + partlyCheckedSQL(topic) + `,
			array(SELECT generation FROM consumer_generations WHERE topic = $1 ORDER BY started_at)`
	if err := db.QueryRow(ctx, query, topic).Scan(&s.database, &s.checked, &s.generations); err != nil {
		return state{}, fmt.Errorf("read database check: %w", err)
	}
	s.checked = s.checked && len(s.generations) > 0
	s.uncompared, err = uncomparedProducers(ctx, db, topic)
	return s, err
}

// generation returns the current generation, "" if there is none.
func (s state) generation() string {
	if len(s.generations) == 0 {
		return ""
	}
	return s.generations[len(s.generations)-1]
}

// uncomparedProducers returns the producers that have not yet told what they know of a
// database that was checked without them.
func uncomparedProducers(ctx context.Context, db postgres.Querier, topic event.Topic) (map[string]beforeCheck, error) {
	rows, err := db.Query(ctx, `SELECT producer, generation, consumed FROM uncompared_producers WHERE topic = $1`, topic)
	if err != nil {
		return nil, fmt.Errorf("read uncompared producers: %w", err)
	}
	uncompared := map[string]beforeCheck{}
	_, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (before beforeCheck, err error) {
		var producer string
		err = row.Scan(&producer, &before.generation, &before.consumed)
		uncompared[producer] = before
		return before, err
	})
	if err != nil {
		return nil, fmt.Errorf("read uncompared producers: %w", err)
	}
	return uncompared, nil
}

// check compares this database with what Redis and the producers know of it, if it may
// have been replaced since it was last compared. If it turns out to be an older copy,
// check calls Restored, once in all instances, and starts a new generation. A producer
// that is down then is compared when it comes back. check reports, also with an error,
// whether events can be requested from the producers, except from those in c.uncompared.
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
		c.generation, c.uncompared = s.generation(), slices.Collect(maps.Keys(s.uncompared))
		c.poster.checked.Store(&checkedDatabase{c.database, c.generation, len(c.uncompared) > 0})
		if len(c.uncompared) == 0 {
			return true, nil
		}
	}
	found, err := c.evidence(ctx, watermarks, s)
	if err != nil {
		return false, err
	}
	if s.checked && len(found.posted) == 0 {
		return true, nil
	}
	if !s.checked && !found.complete() && time.Since(c.since) < c.producersTimeout(watermarks) {
		return false, nil
	}
	handled, err := c.compareDatabase(ctx, s, found, position)
	if errors.Is(err, errCheckedElsewhere) {
		return s.checked, nil
	}
	if err != nil {
		return s.checked, fmt.Errorf("check the database: %w", err)
	}
	switch {
	case s.checked:
		c.cfg.Log.InfoContext(ctx, "producers are back; database compared with what they know", "topic", string(c.cfg.Topic), "producers", found.posted)
	case len(found.absent) > 0:
		c.cfg.Log.WarnContext(ctx, "database compared without producers that are away; what must not be done twice waits for them",
			"topic", string(c.cfg.Topic), "producers", found.absent)
	}
	if handled != nil {
		c.cfg.Log.ErrorContext(ctx, "database is an older copy; requesting what it lacks",
			"topic", string(c.cfg.Topic), "handled_until", handled.Until.UTC().Format(time.RFC3339))
		c.metrics.restored.WithLabelValues(string(c.cfg.Topic)).Inc()
	}
	return c.check(ctx, watermarks, position) // The generation may be another one, and fewer producers are uncompared.
}

// compareDatabase decides by the evidence found whether the database is an older copy. It
// fails with errCheckedElsewhere if the database is no longer in the state s, or another
// instance decides.
func (c *Consumer) compareDatabase(ctx context.Context, s state, found evidence, position bus.Position) (handled *Handled, err error) {
	err = c.cfg.Database.Transact(ctx, func(tx pgx.Tx) error {
		var locked bool
		if err := tx.QueryRow(ctx, `SELECT pg_try_advisory_xact_lock($1)`, c.checkLock()).Scan(&locked); err != nil {
			return err
		}
		if !locked {
			return errCheckedElsewhere
		}
		now, err := readState(ctx, tx, c.cfg.Topic)
		if err != nil {
			return err
		}
		if !reflect.DeepEqual(now, s) {
			return errCheckedElsewhere
		}
		handled, err = c.decide(ctx, tx, s, found, position)
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
func (c *Consumer) decide(ctx context.Context, tx pgx.Tx, s state, found evidence, position bus.Position) (*Handled, error) {
	own, err := consumedIn(ctx, tx, c.cfg.Topic)
	if err != nil {
		return nil, err
	}
	var handled *Handled // nil if the database is no older copy
	var lost []string    // the generations of the lost database
	for _, known := range found.consumed {
		if s.olderThan(own, known) {
			if !slices.Contains(s.generations, known.Generation) {
				lost = append(lost, known.Generation)
			}
			if handled == nil {
				handled = &Handled{Numbers: map[string]map[string]int64{}}
			}
			handled.add(known.ConsumedWatermark)
		}
	}
	if handled != nil {
		if !s.checked { // Since the check, the group's position is that of this database.
			if err := c.addAcknowledged(ctx, handled, position); err != nil {
				return nil, err
			}
		}
		if c.cfg.Restored != nil {
			if err := c.cfg.Restored(ctx, *handled); err != nil {
				return nil, fmt.Errorf("prepare the restored database: %w", err)
			}
		}
	}
	if handled != nil || len(s.generations) == 0 {
		// Producers tell of the lost generations until they hear of the new one. That may take
		// until after the next check, and must not look like another loss then.
		const start = `
			INSERT INTO consumer_generations (topic, generation, started_at)
			SELECT $1, unnest($3::text[]), now() - interval '1 microsecond' UNION SELECT $1, $2, now()`
		if _, err := tx.Exec(ctx, start, c.cfg.Topic, rand.Text(), lost); err != nil {
			return nil, fmt.Errorf("start a generation: %w", err)
		}
	}
	return handled, c.storeCheck(ctx, tx, s, found, own)
}

// storeCheck stores that a database in the state s, which had consumed own, was compared
// with the evidence found.
func (c *Consumer) storeCheck(ctx context.Context, tx pgx.Tx, s state, found evidence, own map[string]map[string]Consumed) error {
	const checked = `
		INSERT INTO database_checks (topic, incarnation, file) VALUES ($1, ` + postgres.IncarnationSQL + `, ` + fileSQL + `)
		ON CONFLICT (topic) DO UPDATE SET incarnation = excluded.incarnation, file = excluded.file, checked_at = now()`
	const absent = `
		INSERT INTO uncompared_producers (topic, producer, generation, consumed) VALUES ($1, $2, $3, $4)
		ON CONFLICT (topic, producer) DO NOTHING`
	batch := &pgx.Batch{}
	if !s.checked {
		batch.Queue(checked, c.cfg.Topic)
	}
	for _, producer := range found.absent {
		consumed := own[producer]
		if consumed == nil {
			consumed = map[string]Consumed{}
		}
		batch.Queue(absent, c.cfg.Topic, producer, s.generation(), consumed)
	}
	batch.Queue(`DELETE FROM uncompared_producers WHERE topic = $1 AND producer = ANY($2)`, c.cfg.Topic, found.posted)
	if err := tx.SendBatch(ctx, batch).Close(); err != nil {
		return fmt.Errorf("store database check: %w", err)
	}
	return nil
}

// olderThan reports whether a database that has consumed own is older than what was known
// of it: it does not know the generation, or had consumed less in it. The generations
// before the check say nothing.
func (s state) olderThan(own map[string]map[string]Consumed, known echo) bool {
	since := s.generation()
	if before, late := s.uncompared[known.producer]; late {
		since, own = before.generation, map[string]map[string]Consumed{known.producer: before.consumed}
	}
	generation := slices.Index(s.generations, known.Generation)
	return generation < 0 || generation >= slices.Index(s.generations, since) && lacks(own, known.Producers)
}

func latest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
