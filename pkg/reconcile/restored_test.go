package reconcile_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/outbox"
	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/pkg/reconcile"
	"github.com/headgate/headgate/pkg/testkit"
)

// backup copies all tables of a database. restore puts the copies back, as a restore
// into the running database does.
func backup(t *testing.T, db *postgres.Pool) (restore func()) {
	t.Helper()
	const tables = `
		SELECT table_name FROM information_schema.tables
		WHERE table_schema = 'public' AND table_type = 'BASE TABLE' AND table_name NOT LIKE 'schema_%'`
	rows, err := db.Query(t.Context(), tables)
	if err != nil {
		t.Fatal(err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	copies := []string{"DROP SCHEMA IF EXISTS backup CASCADE", "CREATE SCHEMA backup"}
	var back []string
	for _, name := range names {
		copies = append(copies, fmt.Sprintf("CREATE TABLE backup.%s AS TABLE %s", name, name))
		back = append(back, "TRUNCATE "+name, fmt.Sprintf("INSERT INTO %s OVERRIDING SYSTEM VALUE TABLE backup.%s", name, name))
	}
	execute(t, db, strings.Join(copies, ";"))
	return func() { execute(t, db, strings.Join(back, ";")) }
}

// execute runs statements without parameters in one transaction.
func execute(t *testing.T, db *postgres.Pool, statements string) {
	t.Helper()
	if _, err := db.Exec(t.Context(), statements); err != nil {
		t.Fatalf("%s: %v", statements, err)
	}
}

// wantComplete waits until the consumer has a record of every event that an outbox has
// published, and finds nothing missing.
func (f *fixture) wantComplete() {
	f.t.Helper()
	testkit.Eventually(f.t, func() error {
		rows, err := f.producer.Query(f.t.Context(), `SELECT event_id::text FROM outbox`)
		if err != nil {
			return err
		}
		ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			return err
		}
		var recorded int
		const query = `SELECT count(DISTINCT event_id) FROM consumed_events WHERE event_id = ANY($1::uuid[])`
		if err := f.consumer.QueryRow(f.t.Context(), query, ids).Scan(&recorded); err != nil {
			return err
		}
		if recorded != len(ids) {
			return fmt.Errorf("%d of %d events are recorded", recorded, len(ids))
		}
		return nil
	})
}

func (f *fixture) report() reconcile.Report {
	f.t.Helper()
	report, err := reconcile.Gaps(f.t.Context(), f.consumer, event.Audit, f.producers, time.Unix(0, 0))
	if err != nil {
		f.t.Fatal(err)
	}
	return report
}

// eventuallyReports waits until gaps prints these lines. EPOCH stands for any epoch.
func (f *fixture) eventuallyReports(want ...string) {
	f.t.Helper()
	testkit.Eventually(f.t, func() error {
		report := f.report()
		var lines []string
		for _, gap := range report.Gaps {
			if gap.Epoch != "" {
				gap.Epoch = "EPOCH"
			}
			lines = append(lines, gap.String())
		}
		if got := strings.Join(lines, "\n"); got != strings.Join(want, "\n") {
			return fmt.Errorf("gaps:\n%s\nwant:\n%s", got, strings.Join(want, "\n"))
		}
		if len(report.Doubts) > 0 {
			return fmt.Errorf("doubts: %v", report.Doubts)
		}
		return nil
	})
}

// TestRestoredProducer is REL-50: after the producer's database was restored to an older
// state, it gives no number twice. Every event of it arrives, also if Redis lost some
// at the same time, and the events that were lost with the database are reported.
func TestRestoredProducer(t *testing.T) {
	t.Parallel()
	for name, flush := range map[string]bool{"Redis is intact": false, "Redis is empty": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			stop := f.produce()
			stopConsumer := f.consume(accept)
			f.add(5)
			f.wantRecords(5)
			restore := backup(t, f.producer)
			f.add(12)
			f.wantRecords(17)
			f.gaps(17)
			if flush {
				stopConsumer()
			}
			stop()
			restore()
			if flush {
				f.flush()
			}
			stop = f.produce()
			f.add(12)
			f.wantPublished()
			if flush {
				// The stream loses them as well; nothing but a number can tell.
				stop()
				f.flush()
				f.produce()
				f.consume(accept)
			}
			f.wantRecords(29)
			f.wantComplete()
			if flush {
				f.acceptUnknownEnd(18)
			}
			f.eventuallyReports()
			var epochs int
			if err := f.producer.QueryRow(t.Context(), `SELECT count(*) FROM outbox_epochs WHERE topic = 'audit-events'`).Scan(&epochs); err != nil || epochs < 2 {
				t.Errorf("%d epochs, %v, want a new one", epochs, err)
			}
		})
	}
}

// TestRestoredProducerLost is REL-50: what was lost in Redis and with the producer's
// database is reported as missing for good, until an operator accepts it.
func TestRestoredProducerLost(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	stop := f.produce()
	stopConsumer := f.consume(accept)
	f.add(5)
	f.wantRecords(5)
	f.gaps(5)
	restore := backup(t, f.producer)
	stopConsumer()
	f.add(3) // Nobody ever reads these.
	f.wantPublished()
	if err := f.client.XTrimMaxLen(t.Context(), string(event.Audit), 0).Err(); err != nil {
		t.Fatal(err)
	}
	f.wantPosted(8) // The consumer will read this first.
	stop()
	restore()
	f.produce()
	f.consume(accept)
	f.add(4)
	f.wantRecords(9)
	f.eventuallyReports("producer/EPOCH:6..8  3 events are missing; the producer does not have it any more")
	gap := f.report().Gaps[0]
	err := pgx.BeginFunc(t.Context(), f.consumer, func(tx pgx.Tx) error {
		return reconcile.Accept(t.Context(), tx, reconcile.Acceptance{Topic: event.Audit, Gap: gap, Reason: "restored", By: "me"})
	})
	if err != nil {
		t.Fatal(err)
	}
	f.eventuallyReports()
	testkit.Eventually(t, func() error {
		if n := f.sum("headgate_events_unavailable"); n != 0 {
			return fmt.Errorf("headgate_events_unavailable = %v", n)
		}
		return nil
	})
}

// wantPosted waits until the producer has posted that it has published up to a number.
func (f *fixture) wantPosted(seq int64) {
	f.t.Helper()
	testkit.Eventually(f.t, func() error {
		w, err := f.posted()
		if err == nil && w.Seq < seq {
			err = fmt.Errorf("published up to %d, want %d", w.Seq, seq)
		}
		return err
	})
}

// posted returns the producer's last watermark.
func (f *fixture) posted() (w reconcile.Watermark, err error) {
	f.t.Helper()
	data, err := f.client.Get(f.t.Context(), "watermark:published:{audit-events}:producer").Bytes()
	if err != nil {
		return w, err
	}
	return w, json.Unmarshal(data, &w)
}

// wantPostedClosed waits until the producer has posted that it has closed an epoch.
func (f *fixture) wantPostedClosed() {
	f.t.Helper()
	testkit.Eventually(f.t, func() error {
		w, err := f.posted()
		if err == nil && len(w.Closed) == 0 {
			err = errors.New("no epoch is closed")
		}
		return err
	})
}

// repost posts the producer's watermark again, as an instance that is still running does.
func (f *fixture) repost() {
	f.t.Helper()
	data, err := f.client.Get(f.t.Context(), "watermark:published:{audit-events}:producer").Bytes()
	if err != nil {
		f.t.Fatal(err)
	}
	var w reconcile.Watermark
	if err := json.Unmarshal(data, &w); err != nil {
		f.t.Fatal(err)
	}
	w.At = time.Now().UTC()
	if data, err = json.Marshal(w); err != nil {
		f.t.Fatal(err)
	}
	f.post(string(data))
}

// TestRecreatedProducer is REL-50: an empty database in the place of the producer's gives
// numbers that were given before. They are those of a new epoch.
func TestRecreatedProducer(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	stop := f.produce()
	f.consume(accept)
	f.add(20)
	f.wantRecords(20)
	f.gaps(20)
	stop()
	f.producer = testkit.Database(t, outbox.Schema())
	stop = f.produce()
	f.add(15)
	f.wantPublished()
	f.wantRecords(35)
	stop()
	// The new epoch has no old record that could hide a loss.
	execute(t, f.consumer, `DELETE FROM consumed_events WHERE seq IN (SELECT max(seq) FROM consumed_events);
		UPDATE epoch_watermarks SET consumed_seq = first_seq - 1`)
	f.produce()
	f.wantRecords(35)
	f.eventuallyReports()
}

// TestLostWithEveryRow is REL-50: what was lost with an outbox that now has no row of its
// epoch, or does not know the epoch, is counted in the metric and not only in gaps. It is
// missing also for a consumer that learns of the epoch only afterwards.
func TestLostWithEveryRow(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ copied, informed bool }{
		"copy from before the first event": {copied: true, informed: true}, "new database": {informed: true},
		"copy from before the first event, consumer learns it later": {copied: true}, "new database, consumer learns it later": {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			restore := backup(t, f.producer)
			stop := f.produce()
			f.add(3) // Nobody ever reads these.
			f.wantPublished()
			f.wantPosted(3)
			stop()
			if err := f.client.XTrimMaxLen(t.Context(), string(event.Audit), 0).Err(); err != nil {
				t.Fatal(err)
			}
			if tc.informed {
				stop = f.consume(accept) // It learns that they were published.
				testkit.Eventually(t, func() error {
					f.repost()
					if gaps := f.report().Gaps; len(gaps) != 1 {
						return fmt.Errorf("gaps = %v", gaps)
					}
					return nil
				})
				stop()
			}
			if tc.copied {
				restore()
			} else {
				f.producer = testkit.Database(t, outbox.Schema())
			}
			f.produce()
			f.add(4)
			f.wantPostedClosed() // The consumer reads no earlier watermark.
			f.consume(accept)
			f.wantRecords(4)
			f.eventuallyReports("producer/EPOCH:1..3  3 events are missing; the producer does not have it any more")
			testkit.Eventually(t, func() error {
				if n := f.sum("headgate_events_unavailable"); n != 3 {
					return fmt.Errorf("headgate_events_unavailable = %v, want 3", n)
				}
				return nil
			})
		})
	}
}
