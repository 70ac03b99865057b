package reconcile_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/headgate/headgate/pkg/outbox"
	"github.com/headgate/headgate/pkg/reconcile"
	"github.com/headgate/headgate/pkg/testkit"
)

// TestLateProducer is REL-93: a producer that is down while a restored database is checked
// is compared when it comes back, before anything is requested from it, even if Redis is
// empty and the others have found the restore without it.
func TestLateProducer(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		copied, others, again bool
		calls                 int64
	}{
		"an older copy": {copied: true, calls: 1}, "a new database": {calls: 1},
		"an older copy that others have found":             {copied: true, others: true, calls: 2},
		"a new database that others have found":            {others: true, calls: 2},
		"an older copy, and Postgres is restarted":         {copied: true, again: true, calls: 1},
		"a new database of others, and a restart, as well": {others: true, again: true, calls: 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			f.producersTimeout = time.Second
			other := &fixture{t: t, log: f.log, client: f.client, box: outbox.New("other"), producer: testkit.Database(t, outbox.Schema())}
			if tc.others {
				f.producers = append(f.producers, "other")
				other.produceAs("other")
			}
			var calls atomic.Int64
			f.restored = func(_ context.Context, handled reconcile.Handled) error {
				calls.Add(1)
				if n := f.republished(); n > 0 {
					t.Errorf("%d events were republished before", n)
				}
				for producer, epochs := range handled.Numbers {
					for _, seq := range epochs {
						if want := map[string]int64{"producer": 35, "other": 20}[producer]; seq != want {
							t.Errorf("events of %s were handled up to %d, want %d", producer, seq, want)
						}
					}
				}
				return nil
			}
			stopConsumer, stop := f.consume(accept), f.produce()
			f.add(5)
			f.wantRecords(5)
			f.wantConsumed(5)
			restore := backup(t, f.consumer)
			f.add(30)
			records := 35
			if tc.others {
				other.add(20)
				records += 20
			}
			f.wantRecords(records)
			f.wantConsumed(35)
			if tc.others {
				other.wantConsumedOf("other", 20)
			}
			stopConsumer()
			stop()
			if err := f.client.FlushDB(t.Context()).Err(); err != nil {
				t.Fatal(err)
			}
			if tc.copied {
				restore()
			} else {
				f.consumer = testkit.Database(t, f.schemas()...)
			}
			f.consume(accept)
			f.wantChecked()
			f.wantDoubt("producer: no ")
			if tc.again {
				if tc.others {
					other.wantGenerationOf(f)
				}
				execute(t, f.consumer, `VACUUM FULL database_checks`) // The database looks like another one, as after a restart.
				f.wantChecked()
			}
			f.produce()
			f.wantRecords(records)
			f.eventuallyReports()
			if n := calls.Load(); n != tc.calls {
				t.Errorf("Restored was called %d times, want %d", n, tc.calls)
			}
			if n := int64(f.sum("headgate_consumer_restored_total")); n != tc.calls {
				t.Errorf("headgate_consumer_restored_total = %d, want %d", n, tc.calls)
			}
		})
	}
}

// TestSilentProducer is REL-93: a producer of which the database knows nothing may have
// published what nobody has read. One that has published nothing says so.
func TestSilentProducer(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.producers = append(f.producers, "email-service")
	f.producersTimeout = time.Second
	f.produce()
	f.consume(accept)
	f.add(3)
	f.wantRecords(3)
	f.wantDoubt("email-service: no watermark yet")
	silent := &fixture{t: t, log: f.log, client: f.client, box: outbox.New("email-service"), producer: testkit.Database(t, outbox.Schema())}
	silent.produceAs("email-service")
	f.eventuallyReports()
	if n := silent.sum("headgate_outbox_restored_total"); n != 0 {
		t.Error("the outbox that was never used counts as restored")
	}
}

func (f *fixture) wantChecked() {
	f.t.Helper()
	testkit.Eventually(f.t, 20*time.Second, func() error {
		if !f.isChecked() {
			return errors.New("the database is not checked")
		}
		return nil
	})
}

// wantGenerationOf waits until the producer knows the present generation of a consumer.
func (f *fixture) wantGenerationOf(consumer *fixture) {
	f.t.Helper()
	const present = `SELECT generation FROM consumer_generations ORDER BY started_at DESC LIMIT 1`
	testkit.Eventually(f.t, 20*time.Second, func() error {
		var want, got string
		if err := consumer.consumer.QueryRow(f.t.Context(), present).Scan(&want); err != nil {
			return err
		}
		if err := f.producer.QueryRow(f.t.Context(), `SELECT watermark ->> 'generation' FROM outbox_consumers`).Scan(&got); err != nil {
			return err
		}
		if got != want {
			return fmt.Errorf("generation %s, want %s", got, want)
		}
		return nil
	})
}

// wantDoubt waits until gaps has no other doubt than one that begins with prefix.
func (f *fixture) wantDoubt(prefix string) {
	f.t.Helper()
	testkit.Eventually(f.t, 20*time.Second, func() error {
		if doubts := f.report().Doubts; len(doubts) != 1 || !strings.HasPrefix(doubts[0], prefix) {
			return fmt.Errorf("doubts %q, want %q", doubts, prefix)
		}
		return nil
	})
}
