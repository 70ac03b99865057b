package outbox_test

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/outbox"
	"github.com/headgate/headgate/pkg/reconcile"
	"github.com/headgate/headgate/pkg/testkit"
)

// TestEpochs is REL-50: when an epoch starts, and when not.
func TestEpochs(t *testing.T) {
	t.Parallel()
	const known, consumed = "published:{audit-events}:test", "watermark:consumed:{audit-events}"
	const restarted = `UPDATE outbox_sequences SET incarnation = 'another'`
	for name, tc := range map[string]struct {
		change string             // in the database
		known  map[string]float64 // to Redis, by member
		seen   string             // by a consumer
		epochs int
		first  int64 // number of the present epoch
		doubt  bool  // whether the first epoch went on
	}{
		"Postgres was restarted": {change: restarted, known: map[string]float64{"test ": 10}, epochs: 1},
		"nothing is known and nothing was compared, as after an upgrade": {change: `UPDATE outbox_sequences SET incarnation = ''`, epochs: 1},
		"Redis was emptied":                                 {epochs: 1},
		"Redis was emptied and Postgres restarted":          {change: restarted, epochs: 2, first: 11, doubt: true},
		"Redis is an older copy and Postgres was restarted": {change: restarted, known: map[string]float64{"test ": 4}, epochs: 2, first: 11, doubt: true},
		"more was published than the database knows":        {change: restarted, known: map[string]float64{"test ": 14}, epochs: 2, first: 15},
		"the same without a sign of a restart":              {known: map[string]float64{"test ": 14, "other ": 99}, epochs: 2, first: 15},
		"a consumer has seen more":                          {change: restarted, known: map[string]float64{"test ": 10}, seen: `{"producers":{"test":{"":{"seq":3,"seen":20}},"other":{"":{"seq":99}}}}`, epochs: 2, first: 21},
		"an epoch is known that the database does not have": {known: map[string]float64{"test ": 10, "test LATER": 30}, epochs: 3, first: 31},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db, client := testkit.Database(t, outbox.Schema()), testkit.Redis(t)
			fill(t, db, 10)
			published := newPublished(t, db, client)
			if err := published.Check(t.Context(), event.Audit); err != nil {
				t.Fatal(err)
			}
			if _, err := db.Exec(t.Context(), tc.change); err != nil {
				t.Fatal(err)
			}
			for member, seq := range tc.known {
				if err := client.ZAdd(t.Context(), known, redis.Z{Member: member, Score: seq}).Err(); err != nil {
					t.Fatal(err)
				}
			}
			if err := client.HSet(t.Context(), consumed, "g", tc.seen).Err(); err != nil {
				t.Fatal(err)
			}
			if err := published.Check(t.Context(), event.Audit); err != nil {
				t.Fatal(err)
			}
			w, err := published.Watermark(t.Context(), event.Audit)
			if err != nil {
				t.Fatal(err)
			}
			if got := len(w.Closed) + 1; got != tc.epochs {
				t.Errorf("%d epochs, want %d", got, tc.epochs)
			}
			if tc.epochs > 1 && (w.Epoch == "" || w.First != tc.first || w.Seq != tc.first-1) {
				t.Errorf("watermark %+v, want an empty epoch from %d", w.EpochWatermark, tc.first)
			}
			// The previous release numbers rows of the same epoch.
			const previous = `
				WITH next AS (UPDATE outbox_sequences SET last_seq = last_seq + 1 WHERE topic = $1 RETURNING last_seq)
				INSERT INTO outbox (event_id, topic, name, payload, seq, published_at)
				SELECT gen_random_uuid(), $1, 'user.logged_in.v1', '{"a":1}', last_seq, now() FROM next`
			if _, err := db.Exec(t.Context(), previous, event.Audit); err != nil {
				t.Fatal(err)
			}
			if after, err := published.Watermark(t.Context(), event.Audit); err != nil || after.Epoch != w.Epoch || after.First != w.First || after.Seq != w.Seq+1 {
				t.Errorf("watermark %+v after %+v, %v", after.EpochWatermark, w.EpochWatermark, err)
			}
			if tc.epochs == 2 && (w.Closed[0].Last != 10 || w.Closed[0].Known < 10 || w.Closed[0].EndUnknown != tc.doubt) {
				t.Errorf("closed epoch %+v", w.Closed[0])
			}
		})
	}
}

// TestUnusedEpoch is REL-50 for a topic on which nothing was published when the database
// was copied: Redis and the copy know of no number, but numbers may have been used.
func TestUnusedEpoch(t *testing.T) {
	t.Parallel()
	db, client := testkit.Database(t, outbox.Schema()), testkit.Redis(t)
	published := newPublished(t, db, client)
	epoch := func() string {
		t.Helper()
		if err := published.Check(t.Context(), event.Audit); err != nil {
			t.Fatal(err)
		}
		w, err := published.Watermark(t.Context(), event.Audit)
		if err != nil || w.First != 1 || w.Seq != 0 {
			t.Fatalf("watermark %+v, %v, want an empty epoch from 1", w, err)
		}
		return w.Epoch
	}
	before := epoch()
	if again := epoch(); again != before {
		t.Errorf("epoch %s, want still %s", again, before)
	}
	if _, err := db.Exec(t.Context(), `UPDATE outbox_sequences SET incarnation = 'another'`); err != nil {
		t.Fatal(err)
	}
	if after := epoch(); after == before {
		t.Errorf("the restored copy continues epoch %s", after)
	}
}

// TestCheckWithoutRedis: what Redis knows decides, so nothing is decided without it.
func TestCheckWithoutRedis(t *testing.T) {
	t.Parallel()
	db, client := testkit.Database(t, outbox.Schema()), testkit.Redis(t)
	fill(t, db, 10)
	client.Close()
	if err := newPublished(t, db, client).Check(t.Context(), event.Audit); !errors.Is(err, redis.ErrClosed) {
		t.Errorf("Check() = %v", err)
	}
}

// TestKnownLater is REL-50: a consumer that was down when an epoch was closed tells later
// that it has seen more of it.
func TestKnownLater(t *testing.T) {
	t.Parallel()
	db, client := testkit.Database(t, outbox.Schema()), testkit.Redis(t)
	fill(t, db, 10)
	published := newPublished(t, db, client)
	check := func() {
		t.Helper()
		if err := published.Check(t.Context(), event.Audit); err != nil {
			t.Fatal(err)
		}
	}
	check()
	if _, err := db.Exec(t.Context(), `UPDATE outbox_sequences SET incarnation = 'another'`); err != nil {
		t.Fatal(err)
	}
	check()
	if err := client.HSet(t.Context(), "watermark:consumed:{audit-events}", "g", `{"producers":{"test":{"":{"seq":12,"seen":17}}}}`).Err(); err != nil {
		t.Fatal(err)
	}
	check()
	w, err := published.Watermark(t.Context(), event.Audit)
	if err != nil || len(w.Closed) != 1 || w.Closed[0].Last != 10 || w.Closed[0].Known != 17 || w.First != 11 {
		t.Errorf("watermark %+v, %v; want one closed epoch that is known up to 17", w, err)
	}
}

// TestLostNumbersAreOffered is REL-89: what was lost with a database is offered to
// consumers that learn of its epoch only afterwards, until every known consumer has
// accounted for it and its rows would have been purged.
func TestLostNumbersAreOffered(t *testing.T) {
	t.Parallel()
	const old = `UPDATE outbox_epochs SET closed_at = now() - interval '8 days'`
	const lacks = `INSERT INTO outbox_consumers VALUES ('audit-events', 'g', '{"producers":{"test":{"":{"seq":14},"LATER":{"seq":29}}}}');`
	const consumed = `INSERT INTO outbox_consumers VALUES ('audit-events', 'g', '{"producers":{"test":{"":{"seq":14},"LATER":{"seq":30}}}}');`
	const forgotten = `UPDATE outbox_consumers SET forgotten_at = now();`
	for name, tc := range map[string]struct {
		posted string // the last watermark
		change string // in the database, afterwards
		purged int64  // rows
		first  map[string]int64
	}{
		"the epoch's watermark is known":  {posted: `{"epoch":"LATER","first":21}`, first: map[string]int64{"": 1, "LATER": 21}},
		"no watermark is known":           {first: map[string]int64{"": 1, "LATER": 15}},
		"no row is left":                  {purged: 10, first: map[string]int64{"": 11, "LATER": 15}},
		"long ago":                        {purged: 10, change: old, first: map[string]int64{"": 15, "LATER": 31}},
		"long ago, and a consumer lacks":  {purged: 10, change: lacks + old, first: map[string]int64{"": 15, "LATER": 15}},
		"long ago, and all have consumed": {purged: 10, change: consumed + old, first: map[string]int64{"": 15, "LATER": 31}},
		"long ago, and it was forgotten":  {purged: 10, change: lacks + forgotten + old, first: map[string]int64{"": 15, "LATER": 31}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db, client := testkit.Database(t, outbox.Schema()), testkit.Redis(t)
			fill(t, db, 10)
			published := newPublished(t, db, client)
			known := []redis.Z{{Member: "test ", Score: 14}, {Member: "test LATER", Score: 30}}
			if err := client.ZAdd(t.Context(), "published:{audit-events}:test", known...).Err(); err != nil {
				t.Fatal(err)
			}
			if err := client.Set(t.Context(), "watermark:published:{audit-events}:test", tc.posted, 0).Err(); err != nil {
				t.Fatal(err)
			}
			if err := published.Check(t.Context(), event.Audit); err != nil {
				t.Fatal(err)
			}
			if _, err := db.Exec(t.Context(), `DELETE FROM outbox WHERE seq <= $1`, tc.purged); err != nil {
				t.Fatal(err)
			}
			if _, err := db.Exec(t.Context(), tc.change); err != nil {
				t.Fatal(err)
			}
			w, err := published.Watermark(t.Context(), event.Audit)
			if err != nil || len(w.Closed) != 2 {
				t.Fatalf("watermark %+v, %v", w, err)
			}
			for _, e := range w.Closed {
				if e.First != tc.first[e.Epoch] || e.Known != map[string]int64{"": 14, "LATER": 30}[e.Epoch] {
					t.Errorf("epoch %q: %+v, want first %d", e.Epoch, e, tc.first[e.Epoch])
				}
			}
			if w.First != 31 {
				t.Errorf("the current epoch begins at %d, want 31", w.First)
			}
		})
	}
}

// TestPreviousReleaseAfterRestore is REL-50: checksums of events that the previous release
// has numbered, before and after an epoch with a name began, are those of their epochs.
func TestPreviousReleaseAfterRestore(t *testing.T) {
	t.Parallel()
	db, client := testkit.Database(t, outbox.Schema()), testkit.Redis(t)
	fill(t, db, 10)
	published := newPublished(t, db, client)
	now := time.Now().Unix() / 3600
	previous := func(hour int64, count, last int) {
		t.Helper()
		const query = `
			INSERT INTO outbox_hourly_checksums AS c (topic, hour, count, sum, last_seq) VALUES ($1, $2, $3::bigint, 100 * $3::bigint, $4)
			ON CONFLICT (topic, hour) DO UPDATE
			SET count = c.count + excluded.count, sum = c.sum + excluded.sum, last_seq = greatest(c.last_seq, excluded.last_seq)`
		if _, err := db.Exec(t.Context(), query, event.Audit, hour, count, last); err != nil {
			t.Fatal(err)
		}
	}
	check := func(change string) reconcile.Watermark {
		t.Helper()
		if _, err := db.Exec(t.Context(), change); err != nil {
			t.Fatal(err)
		}
		if err := published.Check(t.Context(), event.Audit); err != nil {
			t.Fatal(err)
		}
		w, err := published.Watermark(t.Context(), event.Audit)
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	previous(now-1, 6, 6)
	previous(now, 3, 9)
	check(`INSERT INTO outbox_epoch_checksums SELECT 'audit-events', '', hour, 1, 100, 10 FROM outbox_hourly_checksums WHERE last_seq = 9`)
	check(`UPDATE outbox_sequences SET incarnation = 'another'`) // A new epoch begins at 11.
	previous(now, 2, 12)
	w := check(`UPDATE outbox_sequences SET last_seq = 12`)
	if len(w.Closed) != 1 {
		t.Fatalf("watermark %+v, want one closed epoch", w)
	}
	want := [][]reconcile.HourlyChecksum{
		{{Hour: now - 1, Count: 6, Sum: "600", LastSeq: 6}, {Hour: now, Count: 4, Sum: "400", LastSeq: 10}},
		{{Hour: now, Count: 2, Sum: "200", LastSeq: 12}},
	}
	if diff := cmp.Diff(want, [][]reconcile.HourlyChecksum{w.Closed[0].Hours, w.Hours}); diff != "" {
		t.Errorf("checksums of both epochs (-want +got):\n%s", diff)
	}
}
