package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/outbox"
	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/pkg/testkit"
)

// recorder is a broker that fails now and then, before or after it has taken the
// messages, and remembers the order of first deliveries.
type recorder struct {
	mu      sync.Mutex
	faults  *rand.Rand
	seen    map[string]bool
	numbers map[string][]int64 // by topic and subject
	seqs    map[string]map[int64]string
}

func newRecorder(seed uint64) *recorder {
	return &recorder{
		faults: rand.New(rand.NewPCG(seed, seed)), // A seed makes the test repeatable.
		seen:   map[string]bool{}, numbers: map[string][]int64{}, seqs: map[string]map[int64]string{},
	}
}

func (r *recorder) PublishNumbered(topic string, _ []bus.HighestNumber, messages ...*message.Message) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.faults.IntN(5) == 0 {
		return errors.New("broker is unavailable")
	}
	for _, m := range messages {
		e, err := event.Parse(m.Payload)
		if err != nil {
			return err
		}
		if r.seqs[topic] == nil {
			r.seqs[topic] = map[int64]string{}
		}
		if other, ok := r.seqs[topic][e.ProducerSeq]; ok && other != e.ID {
			return fmt.Errorf("number %d of %s is that of %s and of %s", e.ProducerSeq, topic, other, e.ID)
		}
		r.seqs[topic][e.ProducerSeq] = e.ID
		if key := topic + " " + e.ID; !r.seen[key] {
			r.seen[key] = true
			r.numbers[topic+" "+e.Subject] = append(r.numbers[topic+" "+e.Subject], e.ProducerSeq)
		}
	}
	if r.faults.IntN(5) == 0 {
		return errors.New("the answer was lost")
	}
	return nil
}

// TestOrderAndNumbers has three relays, a broker that fails and transactions
// that are rolled back: on each topic the numbers are dense, and each subject's
// events come in their order.
func TestOrderAndNumbers(t *testing.T) {
	t.Parallel()
	db, client := testkit.Database(t, outbox.Schema()), testkit.Redis(t)
	box, broker := outbox.New("test"), newRecorder(1)
	for range 3 {
		relay(t, db, client, broker)
	}
	const subjects, each = 20, 25
	var writers sync.WaitGroup
	for s := range subjects {
		writers.Go(func() {
			for i := range each {
				var end error
				if i%5 == 3 {
					end = errRolledBack
				}
				addEvent(t, db, box, fmt.Sprint("subject-", s), end)
			}
		})
	}
	writers.Wait()
	const want = subjects * (each - each/5)
	testkit.Eventually(t, func() error {
		broker.mu.Lock()
		defer broker.mu.Unlock()
		for _, topic := range []event.Topic{event.Audit, event.User} {
			if n := len(broker.seqs[string(topic)]); n != want {
				return fmt.Errorf("%d events on %s, want %d", n, topic, want)
			}
		}
		return nil
	})
	broker.mu.Lock()
	defer broker.mu.Unlock()
	for _, topic := range []event.Topic{event.Audit, event.User} {
		for n := int64(1); n <= want; n++ {
			if broker.seqs[string(topic)][n] == "" {
				t.Errorf("number %d of %s is missing", n, topic)
			}
		}
	}
	for subject, numbers := range broker.numbers {
		for i := range numbers[1:] {
			if numbers[i] >= numbers[i+1] {
				t.Errorf("%s: event %d came before event %d", subject, numbers[i], numbers[i+1])
			}
		}
	}
	wantChecksums(t, db, want)
}

var errRolledBack = errors.New("rolled back")

// addEvent adds an event in a transaction that ends with end: nil commits it.
func addEvent(t *testing.T, db *postgres.Pool, box *outbox.Box, subject string, end error) {
	t.Helper()
	err := pgx.BeginFunc(t.Context(), db, func(tx pgx.Tx) error {
		e := event.New(context.Background(), time.Now(), subject, event.UserSignedUp{Email: "a@example.com"})
		if err := box.Add(t.Context(), tx, e); err != nil {
			return err
		}
		return end
	})
	if err != nil && !errors.Is(err, end) {
		t.Error(err)
	}
}

// wantChecksums compares the sequence and the hourly checksums, kept while rows were
// numbered, with the rows.
func wantChecksums(t *testing.T, db *postgres.Pool, want int64) {
	t.Helper()
	const query = `
		SELECT c.topic, sum(c.count)::bigint, max(c.last_seq), max(s.last_seq), (SELECT count(DISTINCT o.seq) FROM outbox o WHERE o.topic = c.topic)
		FROM outbox_epoch_checksums c JOIN outbox_sequences s USING (topic)
		GROUP BY c.topic`
	rows, err := db.Query(t.Context(), query)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var topic string
	var count, last, sequence, numbers int64
	topics := 0
	_, err = pgx.ForEachRow(rows, []any{&topic, &count, &last, &sequence, &numbers}, func() error {
		topics++
		if count != want || last != want || sequence != want || numbers != want {
			t.Errorf("%s: %d counted, last %d, sequence at %d, %d numbers, want %d", topic, count, last, sequence, numbers, want)
		}
		return nil
	})
	if err := errors.Join(err, rows.Err()); err != nil || topics != 2 {
		t.Errorf("%d topics, %v", topics, err)
	}
}

// TestPreviousRelease: rows that it wrote, without a subject, are numbered and
// published, too.
func TestPreviousRelease(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t, outbox.Schema())
	const insert = `INSERT INTO outbox (event_id, topic, name, payload)
		VALUES ('01926f3a-7c2e-7b3a-9d55-0f5e6a1b2c3d', 'audit-events', 'a.b.v1', $1)`
	payload := `{"id":"01926f3a-7c2e-7b3a-9d55-0f5e6a1b2c3d","name":"a.b.v1","occurredAt":"2026-01-01T00:00:00Z","producer":"test","actor":{"type":"service"},"outcome":"success","data":{}}`
	if _, err := db.Exec(t.Context(), insert, payload); err != nil {
		t.Fatal(err)
	}
	broker := newRecorder(2)
	relay(t, db, testkit.Redis(t), broker)
	testkit.Eventually(t, func() error {
		broker.mu.Lock()
		defer broker.mu.Unlock()
		if broker.seqs["audit-events"][1] == "" {
			return errors.New("not published")
		}
		return nil
	})
}
