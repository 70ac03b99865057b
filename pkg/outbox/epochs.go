package outbox

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"math"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/pkg/reconcile"
)

// Epochs keeps the numbers of an outbox unique although its database may be replaced by
// an older copy. It is safe for concurrent use.
//
// A topic is numbered only in the incarnation of the database in which its last number
// was compared with what Redis knows. If more is known than the database has, or Redis
// cannot tell, a new epoch starts above everything known. Numbers rise across epochs, so
// the number of a row tells its epoch.
type Epochs struct {
	db       *postgres.Pool
	redis    redis.UniversalClient
	producer string
	log      *slog.Logger
	restored *prometheus.CounterVec
}

// NewEpochs returns the epochs of a producer's outbox in db.
func NewEpochs(db *postgres.Pool, client redis.UniversalClient, producer string, log *slog.Logger, reg prometheus.Registerer) *Epochs {
	e := &Epochs{db: db, redis: client, producer: producer, log: log, restored: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "headgate_outbox_restored_total", Help: "How often the outbox was found to be an older copy of itself, so that a new epoch of its numbers started.",
	}, []string{"topic"})}
	reg.MustRegister(e.restored)
	return e
}

// incarnation is an SQL expression for the incarnation of the outbox. A restore into a
// running database keeps that of the database but gives the table another file.
const incarnation = `(` + postgres.IncarnationSQL + ` || '/' || pg_relation_filenode('outbox_sequences'::regclass))`

// epoch is one epoch of the numbers of a topic.
type epoch struct {
	name        string
	first, last int64 // last is maxSeq while it is current
	known       int64 // when it was closed, or was found out since; 0 while it is current
}

// maxSeq is above every sequence number.
const maxSeq = math.MaxInt64

// sequence is the state of a topic's numbers.
type sequence struct {
	last, published       int64  // numbers; of a published row
	incarnation, compared string // now, and when last was compared
	epochs                []epoch
	offered               map[string]int64 // the first number of each epoch in the last watermark in Redis
}

func (s sequence) current() (epoch, bool) {
	for _, e := range s.epochs {
		if e.last == maxSeq {
			return e, true
		}
	}
	return epoch{}, false
}

// Check compares the last number of a topic with what Redis knows, and starts a new
// epoch if the database may be an older copy. It fails if Redis does not answer or if
// the database is replaced meanwhile.
func (e *Epochs) Check(ctx context.Context, topic event.Topic) error {
	// The incarnation is read before Redis: what is known then is at least what was
	// published before this incarnation began. Redis is read before the last number: in
	// a database that is not a copy, the number is at least as high.
	before, err := e.read(ctx, e.db, topic)
	if err != nil {
		return err
	}
	known, err := reconcile.ReadKnown(ctx, e.redis, topic, e.producer)
	if err != nil {
		return err
	}
	now, err := e.read(ctx, e.db, topic)
	if err != nil {
		return err
	}
	if now.incarnation == before.incarnation && now.compared == now.incarnation && now.contains(known) && len(now.exceeded(known)) == 0 {
		return nil
	}
	offered, err := reconcile.ReadFirst(ctx, e.redis, topic, e.producer)
	if err != nil {
		return err
	}
	var found verdict
	err = e.db.Transact(ctx, func(tx pgx.Tx) error {
		batch := &pgx.Batch{}
		batch.Queue(limitLockWait)
		batch.Queue(addSequence, topic)
		batch.Queue(lockSequence, topic)
		if err := tx.SendBatch(ctx, batch).Close(); err != nil {
			return fmt.Errorf("lock the numbers of %s: %w", topic, err)
		}
		locked, err := e.read(ctx, tx, topic)
		if err != nil {
			return err
		}
		if locked.incarnation != before.incarnation {
			return errReplaced
		}
		locked.offered = offered
		found, err = e.decide(ctx, tx, topic, locked, known)
		return err
	})
	if err == nil && found.copied {
		e.log.ErrorContext(ctx, "outbox may be an older copy; new epoch started", "topic", string(topic),
			"epoch", found.epoch.name, "last_seq", found.last, "known_seq", known.Of(found.epoch.name), "end_unknown", found.endUnknown)
		e.restored.WithLabelValues(string(topic)).Inc()
	}
	return err
}

// verdict is what a check found.
type verdict struct {
	copied     bool // the database may be an older copy
	epoch      epoch
	last       int64 // number
	endUnknown bool  // nobody knows whether there were events after it
}

var (
	errReplaced  = errors.New("the database was replaced during the check")
	errUnchecked = errors.New("the numbers were not compared in this incarnation of the database")
)

func (e *Epochs) read(ctx context.Context, db postgres.Querier, topic event.Topic) (s sequence, err error) {
	const numbers = `
		SELECT ` + incarnation + `, coalesce(max(last_seq), 0), coalesce(max(incarnation), ''), coalesce((
			SELECT seq FROM outbox
			WHERE topic = $1 AND seq IS NOT NULL AND published_at IS NOT NULL
			ORDER BY topic DESC, seq DESC
			LIMIT 1), 0)
		FROM outbox_sequences WHERE topic = $1`
	batch := &pgx.Batch{}
	batch.Queue(numbers, topic).QueryRow(func(row pgx.Row) error { return row.Scan(&s.incarnation, &s.last, &s.compared, &s.published) })
	batch.Queue(readEpochs, topic).Query(func(rows pgx.Rows) (err error) {
		s.epochs, err = pgx.CollectRows(rows, scanEpoch)
		return err
	})
	if err := db.SendBatch(ctx, batch).Close(); err != nil {
		return sequence{}, fmt.Errorf("read the numbers of %s: %w", topic, err)
	}
	return s, nil
}

// readEpochs reads the epochs of a topic for scanEpoch.
const readEpochs = `SELECT epoch, first_seq, coalesce(last_seq, 9223372036854775807), coalesce(known_seq, 0) FROM outbox_epochs WHERE topic = $1 ORDER BY first_seq`

func scanEpoch(row pgx.CollectableRow) (epoch, error) {
	var e epoch
	err := row.Scan(&e.name, &e.first, &e.last, &e.known)
	return e, err
}

// contains reports whether the database has every number and epoch that is known.
func (s sequence) contains(known reconcile.Known) bool {
	current, ok := s.current()
	return ok && len(s.foreign(known)) == 0 && known.Of(current.name) <= s.last
}

// foreign returns the known epochs that the database does not have.
func (s sequence) foreign(known reconcile.Known) map[string]int64 {
	foreign := known.Epochs()
	for _, e := range s.epochs {
		delete(foreign, e.name)
	}
	return foreign
}

// exceeded returns the closed epochs of which more is known than when they were closed.
// Redis may have been emptied then; consumers that were down tell later what they have
// seen.
func (s sequence) exceeded(known reconcile.Known) map[string]int64 {
	exceeded := map[string]int64{}
	for _, e := range s.epochs {
		if seq := known.Of(e.name); e.last != maxSeq && seq > e.known {
			exceeded[e.name] = seq
		}
	}
	return exceeded
}

// decide trusts the database or starts a new epoch.
func (e *Epochs) decide(ctx context.Context, tx pgx.Tx, topic event.Topic, s sequence, known reconcile.Known) (verdict, error) {
	current, ok := s.current()
	if !ok && s.last > 0 {
		// The previous release has numbered rows of a topic that was new.
		current, ok = epoch{first: 1, last: maxSeq}, true
		s.epochs = append(s.epochs, current)
		if _, err := tx.Exec(ctx, `INSERT INTO outbox_epochs (topic, epoch, first_seq) VALUES ($1, '', 1)`, topic); err != nil {
			return verdict{}, fmt.Errorf("store the first epoch of %s: %w", topic, err)
		}
	}
	const raiseKnown = `UPDATE outbox_epochs SET known_seq = $3, closed_at = now() WHERE topic = $1 AND epoch = $2`
	for name, seq := range s.exceeded(known) {
		if _, err := tx.Exec(ctx, raiseKnown, topic, name, seq); err != nil {
			return verdict{}, fmt.Errorf("store what is known of an epoch of %s: %w", topic, err)
		}
	}
	doubt := s.inDoubt(current, known)
	if s.contains(known) && !doubt {
		return verdict{}, e.trust(ctx, tx, topic)
	}
	v := verdict{copied: ok || len(known.Epochs()) > 0, epoch: current, last: s.last, endUnknown: doubt}
	return v, e.start(ctx, tx, topic, s, known)
}

// inDoubt reports whether Redis cannot tell if the database is older than what was
// published: Redis was emptied, or is an older copy itself and knows less than the
// database. The previous release did not tell Redis, so before the first check that is
// no sign.
func (s sequence) inDoubt(current epoch, known reconcile.Known) bool {
	added, ok := known.Added[current.name]
	replaced := s.compared != "" && s.compared != s.incarnation
	return replaced && (!ok || s.published >= current.first && added < s.published)
}

// trust stores that the numbers were compared in this incarnation.
func (e *Epochs) trust(ctx context.Context, tx pgx.Tx, topic event.Topic) error {
	if _, err := tx.Exec(ctx, `UPDATE outbox_sequences SET incarnation = `+incarnation+` WHERE topic = $1`, topic); err != nil {
		return fmt.Errorf("store the check of %s: %w", topic, err)
	}
	return nil
}

// start closes the current epoch, and starts one whose numbers are above all known ones.
func (e *Epochs) start(ctx context.Context, tx pgx.Tx, topic event.Topic, s sequence, known reconcile.Known) error {
	const closeCurrent = `
		UPDATE outbox_epochs SET last_seq = $2::bigint, known_seq = greatest($2::bigint, $3::bigint), end_unknown = $4, closed_at = now()
		WHERE topic = $1 AND last_seq IS NULL`
	// What the previous release adds to an hour from now on is of the new epoch.
	const movePrevious = `
		WITH previous AS (DELETE FROM outbox_hourly_checksums WHERE topic = $1 RETURNING topic, hour, count, sum, last_seq)
		INSERT INTO outbox_epoch_checksums AS o (topic, epoch, hour, count, sum, last_seq)
		SELECT c.topic, epoch, hour, count, sum, c.last_seq FROM previous c JOIN outbox_epochs e ON ` + epochOfPrevious + `
		ON CONFLICT (topic, epoch, hour) DO UPDATE
		SET count = o.count + excluded.count, sum = o.sum + excluded.sum, last_seq = greatest(o.last_seq, excluded.last_seq)`
	// An epoch that the database has lost has no rows: it ends before it begins.
	const addForeign = `
		INSERT INTO outbox_epochs (topic, epoch, first_seq, last_seq, known_seq, end_unknown, closed_at)
		VALUES ($1, $2, $3::bigint, $3::bigint - 1, $4, $5, now())`
	const begin = `INSERT INTO outbox_epochs (topic, epoch, first_seq) VALUES ($1, $2, $3)`
	const raise = `UPDATE outbox_sequences SET last_seq = $2 WHERE topic = $1`
	highest := s.last
	for _, seq := range known.Epochs() {
		highest = max(highest, seq)
	}
	batch := &pgx.Batch{}
	batch.Queue(movePrevious, topic)
	if current, ok := s.current(); ok {
		batch.Queue(closeCurrent, topic, s.last, known.Of(current.name), s.inDoubt(current, known))
	}
	for name, seq := range s.foreign(known) {
		_, added := known.Added[name]
		batch.Queue(addForeign, topic, name, s.firstOf(name, known), seq, !added)
	}
	batch.Queue(begin, topic, rand.Text(), highest+1)
	batch.Queue(raise, topic, highest)
	if err := tx.SendBatch(ctx, batch).Close(); err != nil {
		return fmt.Errorf("start an epoch of %s: %w", topic, err)
	}
	return e.trust(ctx, tx, topic)
}

// firstOf returns the first number that a known epoch offered, which the database does
// not have: as its last watermark says or, if Redis has none, above every lower number that
// is known.
func (s sequence) firstOf(name string, known reconcile.Known) int64 {
	if first := s.offered[name]; first > 0 {
		return min(first, known.Of(name)+1)
	}
	below := int64(0)
	lower := func(seq int64) {
		if seq < known.Of(name) {
			below = max(below, seq)
		}
	}
	lower(s.last)
	for other, seq := range known.Epochs() {
		if other != name {
			lower(seq)
		}
	}
	return below + 1
}

// epochOf returns the epoch of a number.
func epochOf(epochs []epoch, seq int64) string {
	for _, e := range epochs {
		if seq >= e.first && seq <= e.last {
			return e.name
		}
	}
	return ""
}
