package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"
)

// sampleInterval is the time between two samples; each is of another consumer.
const sampleInterval = 1500 * time.Millisecond

// topicOf is the stream that each consumer reads.
var topicOf = map[string]string{auditService: "audit-events", userService: "user-events", emailService: "email-events"}

// verdictSampler samples what the consumers say about their completeness, and compares it with
// what was published. It is safe for concurrent use.
type verdictSampler struct {
	run     *run
	running sync.WaitGroup
	stop    context.CancelFunc

	// database is locked for writing while a database is replaced: a sample must not
	// compare the verdict of one with the records of another.
	database sync.RWMutex

	mu      sync.Mutex
	covered map[string]map[position]int64 // by consumer: the highest number of any watermark that it had
	samples []sample
}

func newVerdictSampler(r *run) *verdictSampler {
	return &verdictSampler{run: r, covered: map[string]map[position]int64{}, stop: func() {}}
}

func (v *verdictSampler) start(ctx context.Context) {
	ctx, v.stop = context.WithCancel(ctx)
	v.running.Go(func() {
		for n := 0; pause(ctx, sampleInterval) == nil; n++ {
			// A sample that fails says nothing, which a fault may intend.
			_, _ = v.sample(ctx, consumerServices[n%len(consumerServices)], sampling)
		}
	})
}

func (v *verdictSampler) end() {
	v.stop()
	v.running.Wait()
}

// replace calls f, which replaces a database, between two samples.
func (v *verdictSampler) replace(f func() error) error {
	v.database.Lock()
	defer v.database.Unlock()
	return f()
}

func (v *verdictSampler) all() []sample {
	v.mu.Lock()
	defer v.mu.Unlock()
	return append([]sample(nil), v.samples...)
}

// moment says when a sample is taken.
type moment int

const (
	sampling moment = iota
	final           // when nothing was left to do
)

// sample asks a consumer whether it is complete, and keeps the answer. The events that the
// answer covers are read before, and the records after, so an event in flight is no error.
func (v *verdictSampler) sample(ctx context.Context, consumer string, at moment) (sample, error) {
	v.database.RLock()
	defer v.database.RUnlock()
	s := sample{Consumer: consumer, Phase: v.run.history.current(), Final: at == final}
	covered, err := v.coverage(ctx, consumer)
	if err != nil {
		return s, err
	}
	code, output, err := v.run.stack.command(ctx, consumer, "gaps")
	if err != nil {
		return s, err
	}
	s.Complete, s.Output = code == 0, fmt.Sprintf("exit code %d: %s", code, output)
	if s.Complete {
		recorded, err := v.run.observer.consumedEvents(ctx, consumer)
		if err != nil {
			return s, err
		}
		s.Absent = absent(v.published(consumer), covered, recorded)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.samples = append(v.samples, s)
	return s, nil
}

// coverage returns the highest number that any watermark covered which the consumer has ever
// had: a consumer that was restored must not forget what it once knew.
func (v *verdictSampler) coverage(ctx context.Context, consumer string) (map[position]int64, error) {
	now, err := v.run.observer.watermarks(ctx, consumer)
	if err != nil {
		return nil, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	known := v.covered[consumer]
	if known == nil {
		known = map[position]int64{}
		v.covered[consumer] = known
	}
	for p, seq := range now {
		known[p] = max(known[p], seq)
	}
	return maps.Clone(known), nil
}

// lacks returns the events that a consumer should have and has not.
func (v *verdictSampler) lacks(ctx context.Context, consumer string) ([]string, error) {
	covered, err := v.coverage(ctx, consumer)
	if err != nil {
		return nil, err
	}
	recorded, err := v.run.observer.consumedEvents(ctx, consumer)
	if err != nil {
		return nil, err
	}
	return absent(v.published(consumer), covered, recorded), nil
}

// published returns the events that a consumer must have.
func (v *verdictSampler) published(consumer string) []delivery {
	losses := v.run.tail.losses()
	return slices.DeleteFunc(v.run.tail.first(), func(d delivery) bool { return gone(d, consumer, v.run.reverts, losses) })
}

// watermarks returns the published watermarks that a consumer has stored.
func (o *observer) watermarks(ctx context.Context, consumer string) (map[position]int64, error) {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	return o.numbers(ctx, consumer, `SELECT topic, producer, epoch, published_seq FROM epoch_watermarks`)
}

// recordedNumbers returns the highest number that a consumer has a record of.
func (o *observer) recordedNumbers(ctx context.Context, consumer string) (map[position]int64, error) {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	return o.numbers(ctx, consumer, `SELECT topic, producer, epoch, max(seq) FROM consumed_events GROUP BY topic, producer, epoch`)
}

// postedNumbers returns the highest number that Redis knows a consumer has seen.
func (o *observer) postedNumbers(ctx context.Context, consumer string) (map[position]int64, error) {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	data, err := o.redis.HGet(ctx, "watermark:consumed:{"+topicOf[consumer]+"}", consumer).Bytes()
	if errors.Is(err, redis.Nil) {
		return nil, nil // The consumer has not posted yet.
	}
	if err != nil {
		return nil, fmt.Errorf("read the consumed watermark of %s: %w", consumer, err)
	}
	return seenNumbers(consumer, data)
}

// storedNumbers returns the highest number that auth-service knows a consumer has seen.
func (o *observer) storedNumbers(ctx context.Context, consumer string) (map[position]int64, error) {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	const query = `SELECT watermark FROM outbox_consumers WHERE topic = $1 AND consumer = $2`
	var data []byte
	err := o.databases[databases[authService]].QueryRow(ctx, query, topicOf[consumer], consumer).Scan(&data)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the stored watermark of %s: %w", consumer, err)
	}
	return seenNumbers(consumer, data)
}

// seenNumbers returns the highest numbers that a consumer has seen according to its consumed
// watermark.
func seenNumbers(consumer string, watermark []byte) (map[position]int64, error) {
	var posted struct {
		Producers map[string]map[string]struct{ Seen int64 }
	}
	if err := json.Unmarshal(watermark, &posted); err != nil {
		return nil, fmt.Errorf("decode the consumed watermark of %s: %w", consumer, err)
	}
	found := map[position]int64{}
	for producer, epochs := range posted.Producers {
		for epoch, consumed := range epochs {
			found[position{Stream: topicOf[consumer], Producer: producer, Epoch: epoch}] = consumed.Seen
		}
	}
	return found, nil
}

// numbers returns what a query on a consumer's database finds for each stream, producer and
// epoch.
func (o *observer) numbers(ctx context.Context, consumer, query string) (map[position]int64, error) {
	rows, err := o.databases[databases[consumer]].Query(ctx, query)
	if err != nil {
		return nil, fmt.Errorf("read the numbers of %s: %w", consumer, err)
	}
	type watermark struct {
		position

		Seq int64
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (w watermark, err error) {
		err = row.Scan(&w.Stream, &w.Producer, &w.Epoch, &w.Seq)
		return w, err
	})
	if err != nil {
		return nil, fmt.Errorf("read the numbers of %s: %w", consumer, err)
	}
	found := map[position]int64{}
	for _, w := range all {
		found[w.position] = w.Seq
	}
	return found, nil
}

// consumedEvents returns the ids of the events of which a consumer has a record.
func (o *observer) consumedEvents(ctx context.Context, consumer string) (map[string]bool, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*queryTimeout)
	defer cancel()
	rows, err := o.databases[databases[consumer]].Query(ctx, `SELECT event_id::text FROM consumed_events WHERE topic = $1`, topicOf[consumer])
	if err != nil {
		return nil, fmt.Errorf("read the records of %s: %w", consumer, err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("read the records of %s: %w", consumer, err)
	}
	found := make(map[string]bool, len(ids))
	for _, id := range ids {
		found[id] = true
	}
	return found, nil
}
