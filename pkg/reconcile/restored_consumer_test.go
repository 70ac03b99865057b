package reconcile_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/reconcile"
	"github.com/headgate/headgate/pkg/testkit"
)

// TestRestoredConsumer is REL-51: after the consumer's database was restored, Restored is
// called once, before anything is republished, and then the consumer catches up.
func TestRestoredConsumer(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ copied, flush, running, older bool }{
		"an older copy": {copied: true}, "a new database": {}, "an older copy and an empty Redis": {copied: true, flush: true},
		"an older copy under a running consumer": {copied: true, running: true},
		"an older copy and an older Redis":       {copied: true, older: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			f.produce()
			var calls atomic.Int64
			f.restored = func(_ context.Context, handled reconcile.Handled) error {
				if calls.Add(1) == 1 {
					return errors.New("not yet")
				}
				if handled.Until.Before(time.Now().Add(-time.Minute)) {
					t.Errorf("handled until %s", handled.Until)
				}
				for _, seq := range handled.Numbers["producer"] {
					if seq != 35 {
						t.Errorf("handled up to %d, want 35", seq)
					}
				}
				if n := f.republished(); n > 0 {
					t.Errorf("%d events were republished before", n)
				}
				return nil
			}
			stop := f.consume(accept)
			f.add(5)
			f.wantRecords(5)
			f.wantConsumed(5)
			restore := backup(t, f.consumer)
			restoreRedis := f.backupRedis()
			f.add(30)
			f.wantRecords(35)
			f.wantConsumed(35)
			if !tc.running {
				stop()
			}
			if tc.flush {
				f.flush()
			}
			if tc.older {
				restoreRedis()
			}
			if tc.copied {
				restore()
			} else {
				f.consumer = testkit.Database(t, f.schemas()...)
			}
			if !tc.running {
				if f.isChecked() {
					t.Error("the restored database counts as checked")
				}
				f.consume(accept)
			}
			f.wantRecords(35)
			f.eventuallyReports()
			if n := calls.Load(); n != 2 {
				t.Errorf("Restored was called %d times, want once without an error", n)
			}
			if n := f.sum("headgate_consumer_restored_total"); n != 1 {
				t.Errorf("headgate_consumer_restored_total = %v, want 1", n)
			}
			if !f.isChecked() {
				t.Error("the database does not count as checked")
			}
		})
	}
}

// TestRestoredConsumerThatHadNotPosted is REL-51: what the lost database had handled is
// known from the stream if it was not posted yet. An event that was not acknowledged counts
// as not handled.
func TestRestoredConsumerThatHadNotPosted(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	restored := make(chan int64, 1)
	f.restored = func(_ context.Context, handled reconcile.Handled) error {
		for _, seq := range handled.Numbers["producer"] {
			restored <- seq
		}
		return nil
	}
	var blocked atomic.Bool
	handling := make(chan struct{}, 1)
	consumer := f.handle(func(ctx context.Context, _ event.Event) error {
		if blocked.Load() {
			handling <- struct{}{}
			<-ctx.Done()
			return ctx.Err()
		}
		return nil
	})
	f.produce()
	reconciler := f.reconcile()
	f.add(5)
	f.wantRecords(5)
	f.wantConsumed(5)
	restore := backup(t, f.consumer)
	f.add(10)
	f.wantRecords(15)
	f.wantConsumed(15)
	reconciler.Stop()
	f.add(20)
	f.wantRecords(35)
	testkit.WantAcknowledged(t, f.client, event.Audit)
	blocked.Store(true)
	f.add(1)
	<-handling
	consumer.Stop()
	restore()
	f.reconcile()
	if seq := <-restored; seq != 35 {
		t.Errorf("handled up to %d, want 35", seq)
	}
	f.handle(accept)
	f.wantRecords(36)
}

// backupRedis copies what Redis knows of both sides. restore puts the copies back.
func (f *fixture) backupRedis() (restore func()) {
	f.t.Helper()
	copies := map[string]string{}
	for _, key := range []string{"watermark:published:{audit-events}:producer", "watermark:consumed:{audit-events}", "published:{audit-events}:producer"} {
		data, err := f.client.Dump(f.t.Context(), key).Result()
		if err != nil {
			f.t.Fatal(err)
		}
		copies[key] = data
	}
	return func() {
		for key, data := range copies {
			if err := f.client.RestoreReplace(f.t.Context(), key, 0, data).Err(); err != nil {
				f.t.Fatal(err)
			}
		}
	}
}

// TestRestartedPostgres is REL-51: a restart of Postgres alone makes no consumer wait for
// the producers.
func TestRestartedPostgres(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	stop := f.produce()
	f.consume(accept)
	f.add(5)
	f.wantRecords(5)
	f.wantConsumed(5)
	stop()
	execute(t, f.consumer, `VACUUM FULL database_checks`) // The database looks like another one, as after a restart.
	if f.isChecked() {
		t.Fatal("the database counts as checked")
	}
	testkit.Eventually(t, func() error {
		if !f.isChecked() {
			return errors.New("the database is not checked")
		}
		return nil
	})
}

// TestReplacedDatabaseIsCheckedSoon: some work waits until a database that was replaced is
// checked, so the check does not wait for the next round.
func TestReplacedDatabaseIsCheckedSoon(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.produce()
	testkit.Run(t, reconcile.NewConsumer(reconcile.ConsumerConfig{
		Database: f.consumer, Redis: f.client, Topic: event.Audit, Group: "consumer", Producers: []string{"producer"}, Interval: 5 * time.Minute,
		Log: f.log, Metrics: prometheus.NewRegistry(),
	}))
	wantChecked := func(since uint32) (file uint32) {
		t.Helper()
		testkit.Eventually(t, func() error {
			err := f.consumer.QueryRow(t.Context(), `SELECT file FROM database_checks`).Scan(&file)
			if err == nil && (file == since || !f.isChecked()) {
				err = errors.New("the database is not checked")
			}
			return err
		})
		return file
	}
	f.add(1)
	file := wantChecked(0)
	execute(t, f.consumer, `VACUUM FULL database_checks`) // It has another file now, as after a restore.
	wantChecked(file)
}

// wantConsumed waits until Redis and the producer know that the consumer has consumed
// everything up to a number.
func (f *fixture) wantConsumed(seq int64) {
	f.t.Helper()
	f.wantConsumedOf("producer", seq)
}

func (f *fixture) wantConsumedOf(producer string, seq int64) {
	f.t.Helper()
	f.wantStored(producer, "seq", seq)
}

// wantSeen waits until the producer knows that the consumer has a record of a number.
func (f *fixture) wantSeen(seq int64) {
	f.t.Helper()
	f.wantStored("producer", "seen", seq)
}

func (f *fixture) wantStored(producer, field string, seq int64) {
	f.t.Helper()
	const query = `
		SELECT coalesce(max((e.value ->> $2)::bigint), 0)
		FROM outbox_consumers, jsonb_each(watermark -> 'producers' -> $1) AS e`
	testkit.Eventually(f.t, func() error {
		var got int64
		if err := f.producer.QueryRow(f.t.Context(), query, producer, field).Scan(&got); err != nil {
			return err
		}
		if got < seq {
			return fmt.Errorf("%s %d, want %d", field, got, seq)
		}
		return nil
	})
}

func (f *fixture) isChecked() (checked bool) {
	f.t.Helper()
	if err := f.consumer.QueryRow(f.t.Context(), `SELECT `+reconcile.CheckedSQL(event.Audit)).Scan(&checked); err != nil {
		f.t.Fatal(err)
	}
	return checked
}
