package reconcile_test

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/outbox"
	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/pkg/reconcile"
	"github.com/headgate/headgate/pkg/testkit"
)

// TestPreviousRelease runs the statements of the release that knew the tables
// under other names, before and after the migration, on the same connections: a
// rolling deployment does that. Both releases see the same rows.
func TestPreviousRelease(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	now := time.Now().UTC().Truncate(time.Second)
	const id = "01926f3a-7c2e-7b3a-9d55-0f5e6a1b2c3d"
	statements := []struct {
		query string
		args  []any
	}{
		{`INSERT INTO outbox_heads AS h (topic, seq) VALUES ($1, $2)
		ON CONFLICT (topic) DO UPDATE SET seq = h.seq + excluded.seq
		RETURNING seq`, []any{"t", 3}},
		{`INSERT INTO outbox_tallies AS t (topic, hour, count, sum, last_seq)
		SELECT $1, 100, count(*), 7, $2
		FROM unnest($3::uuid[]) AS e (event_id)
		GROUP BY 2
		ON CONFLICT (topic, hour) DO UPDATE
		SET count = t.count + excluded.count, sum = t.sum + excluded.sum, last_seq = greatest(t.last_seq, excluded.last_seq)`, []any{"t", 3, []string{id}}},
		{`SELECT topic, coalesce((SELECT min(seq) - 1 FROM outbox WHERE outbox.topic = h.topic), seq) FROM outbox_heads h ORDER BY topic`, nil},
		{`DELETE FROM outbox_tallies WHERE hour < extract(epoch FROM now() - $1::interval) / 3600 - 1000000`, []any{"7 days"}},
		{`INSERT INTO receipts (topic, producer, seq, event_id)
		SELECT $1, producer, seq, event_id FROM unnest($2::text[], $3::bigint[], $4::uuid[]) AS r (producer, seq, event_id)
		ON CONFLICT DO NOTHING`, []any{"t", []string{"p"}, []int64{1}, []string{id}}},
		{`DELETE FROM receipts WHERE settled_at < $1`, []any{now.Add(-time.Hour)}},
		{`INSERT INTO ledgers AS l (topic, producer, head, reported_at) VALUES ($1, $2, $3, $4)
		ON CONFLICT (topic, producer) DO UPDATE
		SET head = greatest(l.head, excluded.head), reported_at = greatest(l.reported_at, excluded.reported_at)`, []any{"t", "p", 3, now}},
		{`UPDATE ledgers SET settled_to = $3 WHERE topic = $1 AND producer = $2 AND settled_to < $3`, []any{"t", "p", 1}},
		{
			`INSERT INTO ledger_hours AS h (topic, producer, hour, count, sum, last_seq)
		SELECT $1, $2, hour, count, sum, last_seq
		FROM unnest($3::bigint[], $4::bigint[], $5::numeric[], $6::bigint[]) AS t (hour, count, sum, last_seq)
		ON CONFLICT (topic, producer, hour) DO UPDATE
		SET count = excluded.count, sum = excluded.sum, last_seq = excluded.last_seq, agrees = false
		WHERE (h.count, h.sum) <> (excluded.count, excluded.sum) AND excluded.last_seq >= h.last_seq`,
			[]any{"t", "p", []int64{100}, []int64{1}, []string{"7"}, []int64{3}},
		},
		{`UPDATE ledger_hours SET agrees = true WHERE topic = $1 AND producer = $2 AND hour = $3 AND (count, sum) = ($4, $5::numeric)`, []any{"t", "p", 100, 1, "7"}},
	}
	previous := func() {
		t.Helper()
		for _, s := range statements {
			if _, err := db.Exec(t.Context(), s.query, s.args...); err != nil {
				t.Fatalf("%s\n%v", s.query, err)
			}
		}
	}
	migrate(t, db, testkit.Until(t, outbox.Schema(), "00002"))
	migrate(t, db, testkit.Until(t, reconcile.RecordsSchema(), "00001"))
	migrate(t, db, testkit.Until(t, reconcile.WatermarksSchema(), "00001"))
	previous()
	for _, schema := range []postgres.Schema{outbox.Schema(), reconcile.RecordsSchema(), reconcile.WatermarksSchema()} {
		migrate(t, db, schema)
	}
	previous()

	for query, want := range map[string]string{
		`SELECT (topic, last_seq)::text FROM outbox_sequences`:                                                         "(t,6)",
		`SELECT (topic, hour, count, sum, last_seq)::text FROM outbox_hourly_checksums`:                                "(t,100,2,14,3)",
		`SELECT (topic, producer, seq, event_id)::text FROM consumed_events WHERE consumed_at >= $1`:                   "(t,p,1," + id + ")",
		`SELECT (topic, producer, published_seq, consumed_seq)::text FROM published_watermarks WHERE reported_at = $1`: "(t,p,3,1)",
		`SELECT (topic, producer, hour, count, sum, last_seq, matched)::text FROM hourly_checksums`:                    "(t,p,100,1,7,3,t)",
	} {
		var args []any
		if strings.Contains(query, "$1") {
			args = append(args, now)
		}
		var got string
		if err := db.QueryRow(t.Context(), query, args...).Scan(&got); err != nil || got != want {
			t.Errorf("%s = %q, %v, want %q", query, got, err, want)
		}
	}
}

// TestPreviousReleaseWithoutEpochs: the same for the release before epochs. What it had
// recorded is that of the epoch without a name, and so is what it records beside this
// release.
func TestPreviousReleaseWithoutEpochs(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	const id = "01926f3a-7c2e-7b3a-9d55-0f5e6a1b2c3d"
	now := time.Now().UTC().Truncate(time.Second)
	previous := func(seq int64) {
		t.Helper()
		for _, s := range []struct {
			query string
			args  []any
		}{
			{`INSERT INTO outbox_sequences AS s (topic, last_seq) VALUES ($1, $2)
		ON CONFLICT (topic) DO UPDATE SET last_seq = s.last_seq + excluded.last_seq
		RETURNING last_seq`, []any{"t", 1}},
			{`INSERT INTO outbox_hourly_checksums AS c (topic, hour, count, sum, last_seq)
		SELECT $1, 500000, count(*), 7, $2
		FROM unnest($3::uuid[]) AS e (event_id)
		GROUP BY 2
		ON CONFLICT (topic, hour) DO UPDATE
		SET count = c.count + excluded.count, sum = c.sum + excluded.sum, last_seq = greatest(c.last_seq, excluded.last_seq)`, []any{"t", seq, []string{id}}},
			{`INSERT INTO outbox (event_id, topic, name, subject, payload) VALUES (gen_random_uuid(), 't', 'a.b.v1', '', '{"a":1}')`, nil},
			{`UPDATE outbox SET seq = $1, published_at = now() WHERE seq IS NULL`, []any{seq}},
			{`INSERT INTO consumed_events (topic, producer, seq, event_id)
		SELECT $1, producer, seq, event_id FROM unnest($2::text[], $3::bigint[], $4::uuid[]) AS r (producer, seq, event_id)
		ON CONFLICT DO NOTHING`, []any{"t", []string{"p"}, []int64{seq}, []string{id}}},
			{`INSERT INTO published_watermarks AS w (topic, producer, published_seq, reported_at) VALUES ($1, $2, $3, $4)
		ON CONFLICT (topic, producer) DO UPDATE
		SET published_seq = greatest(w.published_seq, excluded.published_seq), reported_at = greatest(w.reported_at, excluded.reported_at)`, []any{"t", "p", seq, now}},
			{`UPDATE published_watermarks SET consumed_seq = $3 WHERE topic = $1 AND producer = $2 AND consumed_seq < $3`, []any{"t", "p", seq}},
			{
				`INSERT INTO hourly_checksums AS h (topic, producer, hour, count, sum, last_seq)
		SELECT $1, $2, hour, count, sum, last_seq
		FROM unnest($3::bigint[], $4::bigint[], $5::numeric[], $6::bigint[]) AS t (hour, count, sum, last_seq)
		ON CONFLICT (topic, producer, hour) DO UPDATE
		SET count = excluded.count, sum = excluded.sum, last_seq = excluded.last_seq, matched = false
		WHERE (h.count, h.sum) <> (excluded.count, excluded.sum) AND excluded.last_seq >= h.last_seq`,
				[]any{"t", "p", []int64{500000}, []int64{seq}, []string{"7"}, []int64{seq}},
			},
		} {
			if _, err := db.Exec(t.Context(), s.query, s.args...); err != nil {
				t.Fatalf("%s\n%v", s.query, err)
			}
		}
	}
	migrate(t, db, testkit.Until(t, outbox.Schema(), "00004"))
	migrate(t, db, testkit.Until(t, reconcile.RecordsSchema(), "00002"))
	migrate(t, db, testkit.Until(t, reconcile.WatermarksSchema(), "00002"))
	previous(1)
	for _, schema := range []postgres.Schema{outbox.Schema(), reconcile.RecordsSchema(), reconcile.WatermarksSchema()} {
		migrate(t, db, schema)
	}
	previous(2)
	for query, want := range map[string]string{
		`SELECT string_agg(seq || epoch, ',' ORDER BY seq) FROM consumed_events`:                                              "1,2",
		`SELECT (epoch, first_seq, published_seq, consumed_seq)::text FROM epoch_watermarks`:                                  `("",1,1,1)`,
		`SELECT (epoch, hour, count, matched)::text FROM epoch_checksums`:                                                     `("",500000,1,f)`,
		`SELECT (epoch, first_seq, last_seq IS NULL)::text FROM outbox_epochs`:                                                `("",1,t)`,
		`SELECT string_agg(attname, ',' ORDER BY attnum) FROM pg_attribute WHERE attrelid = 'consumed_events_pkey'::regclass`: "topic,producer,epoch,seq,event_id",
	} {
		var got string
		if err := db.QueryRow(t.Context(), query).Scan(&got); err != nil || got != want {
			t.Errorf("%s = %q, %v, want %q", query, got, err, want)
		}
	}
	// This release continues, and counts what both have counted.
	client := testkit.Redis(t)
	epochs := outbox.NewEpochs(db, client, "p", testkit.Log(t), prometheus.NewRegistry())
	published := outbox.NewPublished(db, bus.NewPublisher(client), epochs)
	if err := published.Check(t.Context(), "t"); err != nil {
		t.Fatal(err)
	}
	w, err := published.Watermark(t.Context(), "t")
	if err != nil || w.Epoch != "" || w.First != 1 || w.Seq != 2 || len(w.Closed) != 0 || len(w.Hours) != 1 || w.Hours[0].Count != 2 {
		t.Errorf("watermark %+v, %v", w, err)
	}
}

func migrate(t *testing.T, db *postgres.Pool, schema postgres.Schema) {
	t.Helper()
	if err := postgres.Migrate(t.Context(), db, schema); err != nil {
		t.Fatal(err)
	}
}

// TestUpgradeLetsWritersPass is REL-41 for consumed-event records.
func TestUpgradeLetsWritersPass(t *testing.T) {
	t.Parallel()
	testkit.Upgrade{
		DB: testkit.Database(t, testkit.Until(t, reconcile.RecordsSchema(), "00002")), Schema: reconcile.RecordsSchema(), Table: "consumed_events",
		Write: `INSERT INTO consumed_events (topic, producer, seq, event_id) VALUES ('t', 'p', 1, gen_random_uuid())`,
	}.WantWritersPass(t)
}
