package reconcile_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/pkg/testkit"
)

// statements counts the statements that name an epoch.
type statements struct {
	mu sync.Mutex
	of map[any]int
}

func (s *statements) count(args []any) {
	if len(args) != 1 {
		return
	}
	if named, ok := args[0].(pgx.StrictNamedArgs); ok {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.of[named["epoch"]]++
	}
}

func (s *statements) get(epoch string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.of[epoch]
}

func (s *statements) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	s.count(data.Args)
	return ctx
}

func (s *statements) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

func (s *statements) TraceBatchStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceBatchStartData) context.Context {
	return ctx
}

func (s *statements) TraceBatchQuery(_ context.Context, _ *pgx.Conn, data pgx.TraceBatchQueryData) {
	s.count(data.Args)
}

func (s *statements) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData) {}

// trace counts the consumer's statements from now on.
func (f *fixture) trace() *statements {
	f.t.Helper()
	s := &statements{of: map[any]int{}}
	cfg := f.consumer.Config()
	cfg.ConnConfig.Tracer = s
	db, err := pgxpool.NewWithConfig(f.t.Context(), cfg)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(db.Close)
	f.consumer = postgres.NewPool(db)
	return s
}

// TestFinishedEpochs: the epochs of earlier restores cost nothing once nothing is missing
// of them. They are compared again when the producer says something else of them.
func TestFinishedEpochs(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	counted := f.trace()
	f.consume(accept)
	post := func(known int) {
		t.Helper()
		watermark := fmt.Sprintf(`{"at":%q,"epoch":"NOW","first":5,"seq":4,"hours":[],"closed":[{"epoch":"OLD","first":1,"seq":3,"last":3,"known":%d,"hours":[]}]}`,
			time.Now().Format(time.RFC3339Nano), known)
		if err := f.client.Set(t.Context(), "watermark:published:{audit-events}:producer", watermark, 0).Err(); err != nil {
			t.Fatal(err)
		}
	}
	// rounds waits until there were some more rounds, and returns how many statements there
	// were for the closed epoch meanwhile.
	rounds := func() int {
		t.Helper()
		now, old := counted.get("NOW"), counted.get("OLD")
		testkit.Eventually(t, func() error {
			f.repost()
			if n := counted.get("NOW") - now; n < 30 {
				return fmt.Errorf("%d statements", n)
			}
			return nil
		})
		return counted.get("OLD") - old
	}
	post(3)
	if n := rounds(); n == 0 {
		t.Error("an epoch of which events are missing is not compared")
	}
	execute(t, f.consumer, `
		INSERT INTO consumed_events (topic, producer, epoch, seq, event_id)
		SELECT 'audit-events', 'producer', 'OLD', n, gen_random_uuid() FROM generate_series(1, 3) AS n`)
	f.eventuallyReports()
	rounds()
	if n := rounds(); n != 0 {
		t.Errorf("%d statements for a complete epoch", n)
	}
	post(4)
	f.eventuallyReports("producer/EPOCH:4  1 event is missing; the producer does not have it any more")
}
