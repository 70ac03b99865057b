package deadletter_test

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/headgate/headgate/pkg/deadletter"
	"github.com/headgate/headgate/pkg/outbox"
	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/pkg/testkit"
)

const retention = 90 * 24 * time.Hour

// purge purges as an instance whose clock is ahead of the real one.
func purge(t *testing.T, db *postgres.Pool, ahead time.Duration, cfg deadletter.PurgeConfig) int64 {
	t.Helper()
	cfg.Store = deadletter.New(db, outbox.New("test"), func() time.Time { return time.Now().Add(ahead) })
	cfg.Retention, cfg.Log = retention, testkit.Log(t)
	n, err := deadletter.NewPurge(cfg).Once(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestREL73ClosedDeadLettersArePurged is REL-73: closed dead letters are deleted after the
// retention, open ones never, whatever their age.
func TestREL73ClosedDeadLettersArePurged(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	i := newInstance(t, db, 0)
	open, _ := i.add()
	discarded, _ := i.add()
	if err := i.store.Discard(t.Context(), discarded, "a test"); err != nil {
		t.Fatal(err)
	}
	replayed, _ := i.add()
	i.replay(replayed)
	i.next().Ack()
	i.wantStatus(replayed, deadletter.Replayed)
	replaying, _ := i.add()
	i.replay(replaying)
	i.next() // It has no result yet.

	if n := purge(t, db, retention-time.Minute, deadletter.PurgeConfig{}); n != 0 {
		t.Errorf("%d dead letters were purged before the retention was over", n)
	}
	if n := purge(t, db, retention+time.Minute, deadletter.PurgeConfig{}); n != 2 {
		t.Errorf("%d dead letters were purged, want 2", n)
	}
	i.wantStatus(open, deadletter.Open)
	i.wantStatus(replaying, deadletter.Replaying)
	var rows int
	if err := db.QueryRow(t.Context(), `SELECT count(*) FROM dead_letters`).Scan(&rows); err != nil || rows != 2 {
		t.Errorf("%d rows, %v, want 2", rows, err)
	}
}

// TestPurgeKeepsRecords: where dead letters are consumed-event records, a purged one is
// still a record, and nothing else of it is left. One without a number is no record and is
// deleted.
func TestPurgeKeepsRecords(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	i := newInstance(t, db, 0)
	_, data := sealedEvent(t)
	const n = 1800
	for range 2 {
		if err := i.store.Publish("", poisoned(t, strings.Replace(data, `"id"`, `"producerSeq":7,"id"`, 1), "a fault")); err != nil {
			t.Fatal(err)
		}
	}
	deadLetters, err := i.store.List(t.Context(), deadletter.Filter{}, "", 10)
	if err != nil || len(deadLetters) != 1 {
		t.Fatalf("List() = %+v, %v", deadLetters, err)
	}
	id := deadLetters[0].ID
	if err := i.store.Discard(t.Context(), id, "a test"); err != nil {
		t.Fatal(err)
	}
	// As many as several batches, of each kind a third.
	if _, err := db.Exec(t.Context(), `
		INSERT INTO dead_letters (id, message_id, stream, entry_id, reason, class, attempts, payload, metadata, status, first_failed_at, last_failed_at, producer_seq)
		SELECT gen_random_uuid(), n::text, 'email-events', '', '', '', '[]', '', '{}', 'discarded', now(), now(), (ARRAY[NULL, 0, n])[n % 3 + 1]
		FROM generate_series(1, $1::int) AS n`, n); err != nil {
		t.Fatal(err)
	}
	if got := purge(t, db, retention+time.Minute, deadletter.PurgeConfig{AreRecords: true}); got != n+1 {
		t.Errorf("%d dead letters were purged, want %d", got, n+1)
	}
	if got := purge(t, db, 2*retention, deadletter.PurgeConfig{AreRecords: true}); got != 0 {
		t.Errorf("%d dead letters were purged twice", got)
	}
	if deadLetters, err := i.store.List(t.Context(), deadletter.Filter{}, "", 10); err != nil || len(deadLetters) != 0 {
		t.Errorf("List() = %+v, %v, want none", deadLetters, err)
	}
	if _, err := i.store.Get(t.Context(), id); !errors.Is(err, deadletter.ErrNotFound) {
		t.Errorf("Get() = %v, want ErrNotFound", err)
	}
	if err := i.store.Discard(t.Context(), id, "again"); !errors.Is(err, deadletter.ErrNotFound) {
		t.Errorf("Discard() = %v, want ErrNotFound", err)
	}
	var kept, others int
	if err := db.QueryRow(t.Context(), `SELECT count(*) FILTER (WHERE producer_seq > 0), count(*) FILTER (WHERE coalesce(producer_seq, 0) = 0) FROM dead_letters`).Scan(&kept, &others); err != nil || kept != n/3+1 || others != 0 {
		t.Errorf("%d records and %d other rows are left, %v, want %d and 0", kept, others, err, n/3+1)
	}
	const query = `SELECT stream || ' ' || producer || ' ' || producer_seq, d::text FROM dead_letters d WHERE event_id IS NOT NULL`
	var record, row string
	if err := db.QueryRow(t.Context(), query).Scan(&record, &row); err != nil || record != "email-events test 7" || strings.Contains(row, "fault") || strings.Contains(row, `\x7b`) {
		t.Errorf("record = %q, %v in %s", record, err, row)
	}
}

// TestOpenDeadLettersAreAMetric: the metric is that of the database at the time of the
// scrape, and a stranger cannot add a time series.
func TestOpenDeadLettersAreAMetric(t *testing.T) {
	t.Parallel()
	i := newInstance(t, newDatabase(t), 0)
	metrics := prometheus.NewRegistry()
	metrics.MustRegister(i.store.Gauge())
	id, _ := i.add()
	for n := range 3 {
		_, data := sealedEvent(t)
		m := poisoned(t, strings.Replace(data, "user.verification_requested.v1", fmt.Sprintf("user.invented%d.v1", n), 1), "a fault")
		if err := i.store.Publish("", m); err != nil {
			t.Fatal(err)
		}
	}
	if err := i.store.Publish("", poisoned(t, "raw", "a fault")); err != nil {
		t.Fatal(err)
	}
	want := func(series map[string]float64) {
		t.Helper()
		families, err := metrics.Gather()
		if err != nil || len(families) != 1 || families[0].GetName() != "headgate_dead_letters_open" {
			t.Fatalf("metrics = %v, %v", families, err)
		}
		got := map[string]float64{}
		for _, m := range families[0].GetMetric() {
			got[m.GetLabel()[0].GetValue()+" "+m.GetLabel()[1].GetValue()] = m.GetGauge().GetValue()
		}
		if !maps.Equal(got, series) {
			t.Errorf("series = %v, want %v", got, series)
		}
	}
	want(map[string]float64{"message none": 1, "message other": 3, "message user.verification_requested.v1": 1})
	if err := i.store.Discard(t.Context(), id, "a test"); err != nil {
		t.Fatal(err)
	}
	want(map[string]float64{"message none": 1, "message other": 3})
}

// TestUpgradeLetsWritersPass is REL-41 for dead letters.
func TestUpgradeLetsWritersPass(t *testing.T) {
	t.Parallel()
	testkit.Upgrade{
		DB: testkit.Database(t, testkit.Until(t, deadletter.Schema(), "00003")), Schema: deadletter.Schema(), Table: "dead_letters",
		Write: `
			INSERT INTO dead_letters (id, message_id, stream, entry_id, reason, class, attempts, payload, metadata, first_failed_at, last_failed_at)
			VALUES (gen_random_uuid(), gen_random_uuid()::text, 's', '', '', '', '[]', '', '{}', now(), now())`,
	}.WantWritersPass(t)
}
