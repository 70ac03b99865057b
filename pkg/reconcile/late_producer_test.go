package reconcile_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/headgate/headgate/pkg/event"
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
		copied, others, again, later bool
		calls                        int64
	}{
		"an older copy": {copied: true, calls: 1}, "a new database": {calls: 1},
		"an older copy that others have found":             {copied: true, others: true, calls: 2},
		"a new database that others have found":            {others: true, calls: 2},
		"an older copy, and Postgres is restarted":         {copied: true, again: true, calls: 1},
		"a new database of others, and a restart, as well": {others: true, again: true, calls: 2},
		"a copy of a database that was not compared":       {copied: true, later: true, calls: 1},
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
			f.flush()
			if tc.copied {
				restore()
			} else {
				f.consumer = testkit.Database(t, f.schemas()...)
			}
			f.consume(accept)
			f.wantCheckedWithout("producer")
			f.wantDoubt("producer: ")
			if tc.again {
				execute(t, f.consumer, `VACUUM FULL database_checks`) // The database looks like another one, as after a restart.
				f.wantCheckedWithout("producer")
			}
			if tc.later { // The producer was compared and knows a generation between those of the copy.
				execute(t, f.consumer, `INSERT INTO consumer_generations VALUES ('audit-events', 'LATER', now()), ('audit-events', 'LAST', now() + interval '1 s')`)
				execute(t, f.producer, `UPDATE outbox_consumers SET watermark = jsonb_set(watermark, '{generation}', '"LATER"')`)
			}
			f.produce()
			f.wantRecords(records)
			f.eventuallyReports()
			if notice := reconcile.Notice(t.Context(), f.consumer, event.Audit); notice != "" {
				t.Errorf("Notice() = %q after all were compared", notice)
			}
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

// wantCheckedWithout waits until the database is checked without a producer. Mails and
// replays wait for that one.
func (f *fixture) wantCheckedWithout(producer string) {
	f.t.Helper()
	const query = `
		SELECT EXISTS (SELECT FROM checked_databases) AND EXISTS (SELECT FROM consumer_generations)
			AND EXISTS (SELECT FROM uncompared_producers WHERE producer = $1)`
	testkit.Eventually(f.t, func() error {
		var checked bool
		if err := f.consumer.QueryRow(f.t.Context(), query, producer).Scan(&checked); err != nil || checked {
			return err
		}
		return errors.New("the database is not checked")
	})
	if f.isChecked() {
		f.t.Errorf("the database counts as checked without %s", producer)
	}
	if notice := reconcile.Notice(f.t.Context(), f.consumer, event.Audit); !strings.HasSuffix(notice, "which are away: "+producer) {
		f.t.Errorf("Notice() = %q", notice)
	}
}

// wantDoubt waits until gaps has no other doubt than one that begins with prefix.
func (f *fixture) wantDoubt(prefix string) {
	f.t.Helper()
	testkit.Eventually(f.t, func() error {
		if doubts := f.report().Doubts; len(doubts) != 1 || !strings.HasPrefix(doubts[0], prefix) {
			return fmt.Errorf("doubts %q, want %q", doubts, prefix)
		}
		return nil
	})
}

// TestLateProducerWithANewEvent is REL-93: what a producer publishes when it comes back, and
// what the consumer handles before it compares, does not hide that the database is an older
// copy, although a number is missing for good.
func TestLateProducerWithANewEvent(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.producersTimeout = time.Second
	var calls atomic.Int64
	f.restored = func(_ context.Context, handled reconcile.Handled) error {
		calls.Add(1)
		if lost := time.Now().Add(-time.Second); handled.Until.After(lost) {
			t.Errorf("the lost database has handled events until %s, want before %s", handled.Until, lost)
		}
		return nil
	}
	stop := f.produce()
	f.add(10)
	f.wantPublished()
	f.loseForGood(5)
	stopConsumer := f.consume(accept)
	f.wantRecords(9)
	f.wantSeen(10)
	restore := backup(t, f.consumer)
	f.add(30)
	f.wantRecords(39)
	f.wantSeen(40)
	stopConsumer()
	stop()
	f.flush()
	restore()
	f.add(1) // while no relay runs
	f.consume(accept)
	f.wantCheckedWithout("producer")
	stop = f.relay()
	f.wantRecords(10)
	stop()
	f.produce()
	f.wantRecords(40)
	if n := calls.Load(); n != 1 {
		t.Errorf("Restored was called %d times, want 1", n)
	}
}

// TestLateProducerAndAnOlderRedis is REL-93: a watermark that came with an older copy of
// Redis is none of the producer that is down.
func TestLateProducerAndAnOlderRedis(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.producersTimeout = time.Second
	var calls atomic.Int64
	f.restored = func(context.Context, reconcile.Handled) error { calls.Add(1); return nil }
	stop, stopConsumer := f.produce(), f.consume(accept)
	f.add(5)
	f.wantRecords(5)
	f.wantConsumed(5)
	restoreRedis := f.backupRedis()
	restore := backup(t, f.consumer)
	f.add(30)
	f.wantRecords(35)
	f.wantConsumed(35)
	stopConsumer()
	stop()
	f.flush()
	restore()
	f.consume(accept)
	f.wantCheckedWithout("producer")
	restoreRedis()
	rounds := time.NewTimer(5 * interval)
	<-rounds.C
	f.wantCheckedWithout("producer")
	f.produce()
	f.wantRecords(35)
	if n := calls.Load(); n != 1 {
		t.Errorf("Restored was called %d times, want 1", n)
	}
}
