package outbox_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/outbox"
	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/pkg/reconcile"
	"github.com/headgate/headgate/pkg/testkit"
)

// fill makes rows as the previous release left them: numbered and published in the epoch
// that had no name.
func fill(t *testing.T, db *postgres.Pool, n int) {
	t.Helper()
	const rows = `
		INSERT INTO outbox (event_id, topic, name, payload, seq, published_at)
		SELECT gen_random_uuid(), $1, 'user.logged_in.v1', '{"a":1}', n, now() FROM generate_series(1, $2::bigint) AS n`
	if _, err := db.Exec(t.Context(), rows, event.Audit, n); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec(t.Context(), `INSERT INTO outbox_sequences (topic, last_seq) VALUES ($1, $2)`, event.Audit, n); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec(t.Context(), `INSERT INTO outbox_epochs (topic, epoch, first_seq) VALUES ($1, '', 1)`, event.Audit); err != nil {
		t.Fatal(err)
	}
}

func newPublished(t *testing.T, db *postgres.Pool, client *redis.Client) *outbox.Published {
	t.Helper()
	return outbox.NewPublished(db, bus.NewPublisher(client), newEpochs(t, db, client))
}

func wantAdded(t *testing.T, client *redis.Client, n int64) {
	t.Helper()
	info, err := client.XInfoStream(t.Context(), string(event.Audit)).Result()
	if err != nil || info.EntriesAdded != n {
		t.Errorf("%d entries were added, %v, want %d", info.EntriesAdded, err, n)
	}
}

func tableSize(t *testing.T, db *postgres.Pool) (bytes int64) {
	t.Helper()
	if err := db.QueryRow(t.Context(), `SELECT pg_relation_size('outbox') + pg_indexes_size('outbox')`).Scan(&bytes); err != nil {
		t.Fatal(err)
	}
	return bytes
}

// TestLargeAnswer is REL-55: 100,000 missing events are republished in bounded parts, by
// one instance after another, each event once; the outbox does not grow.
func TestLargeAnswer(t *testing.T) {
	t.Parallel()
	const missing = 100_000
	db, client := testkit.Database(t, outbox.Schema()), testkit.Redis(t)
	fill(t, db, missing)
	size := tableSize(t, db)
	request := reconcile.RepublishRequest{Group: "g", Ranges: []reconcile.EpochRange{{SeqRange: reconcile.SeqRange{First: 1, Last: missing}}}}
	parts := 0
	for done := false; !done; parts++ {
		published := newPublished(t, db, client) // as after a restart
		if parts > 0 {
			// The lease of an instance that has died is over.
			if _, err := db.Exec(t.Context(), `UPDATE outbox_answers SET owned_until = now() - interval '1 second'`); err != nil {
				t.Fatal(err)
			}
		}
		answer, err := published.Answer(t.Context(), event.Audit, request)
		if err != nil {
			t.Fatal(err)
		}
		if answer.Sent > 50_000 {
			t.Errorf("a part of %d events", answer.Sent)
		}
		done = answer.Done
	}
	if parts < 2 {
		t.Errorf("%d parts", parts)
	}
	wantAdded(t, client, missing)
	if now := tableSize(t, db); now > size {
		t.Errorf("the outbox has grown from %d to %d bytes", size, now)
	}
}

// TestAnswerOnce: a request is answered by one instance, and not again before the
// consumer has seen a watermark that was written after the answer.
func TestAnswerOnce(t *testing.T) {
	t.Parallel()
	db, client := testkit.Database(t, outbox.Schema()), testkit.Redis(t)
	fill(t, db, 10)
	one, other := newPublished(t, db, client), newPublished(t, db, client)
	request := reconcile.RepublishRequest{Group: "g", Ranges: []reconcile.EpochRange{
		{SeqRange: reconcile.SeqRange{First: 2, Last: 4}}, {SeqRange: reconcile.SeqRange{First: 9, Last: 12}},
	}}
	want := func(published *outbox.Published, sent int64) {
		t.Helper()
		answer, err := published.Answer(t.Context(), event.Audit, request)
		if err != nil || answer.Sent != sent {
			t.Errorf("%d events were sent, %v, want %d", answer.Sent, err, sent)
		}
	}
	want(one, 5)
	want(other, 0)
	if err := one.Check(t.Context(), event.Audit); err != nil {
		t.Fatal(err)
	}
	w, err := one.Watermark(t.Context(), event.Audit)
	if err != nil {
		t.Fatal(err)
	}
	request.Answers = w.Answers["g"]
	want(other, 0) // The same events, too soon.
	request.Ranges = request.Ranges[1:]
	want(other, 2)
	wantAdded(t, client, 7)

	// While another instance is at work, nothing is sent.
	request.Answers++
	request.Ranges[0].First = 10
	if _, err := db.Exec(t.Context(), `UPDATE outbox_answers SET owner = 'another', owned_until = now() + interval '20 seconds'`); err != nil {
		t.Fatal(err)
	}
	want(one, 0)
	for _, over := range []string{"-1 second", "1 hour"} { // A clock that went back must not make it wait for ever.
		if _, err := db.Exec(t.Context(), fmt.Sprintf(`UPDATE outbox_answers SET owner = 'another', digest = '', owned_until = now() + interval '%s'`, over)); err != nil {
			t.Fatal(err)
		}
		want(one, 1)
		request.Answers++
	}
}

// TestLargeChunk is REL-55: an hour that lacks more events than one answer sends is
// answered in parts, each event once.
func TestLargeChunk(t *testing.T) {
	t.Parallel()
	const missing = 60_000
	db, client := testkit.Database(t, outbox.Schema()), testkit.Redis(t)
	fill(t, db, missing)
	published := newPublished(t, db, client)
	if err := published.Check(t.Context(), event.Audit); err != nil {
		t.Fatal(err)
	}
	request := reconcile.RepublishRequest{Group: "g", Chunk: &reconcile.HourChunk{
		From: "00000000-0000-0000-0000-000000000000", Until: "ffffffff-ffff-ffff-ffff-ffffffffffff", IDs: []string{},
	}}
	for sent := int64(0); sent < missing; {
		answer, err := published.Answer(t.Context(), event.Audit, request)
		if err != nil {
			t.Fatal(err)
		}
		if sent += answer.Sent; answer.Sent == 0 || answer.Sent > 50_000 || !answer.Done {
			t.Fatalf("answer %+v after %d events", answer, sent)
		}
		if again, err := published.Answer(t.Context(), event.Audit, request); err != nil || again.Sent > 0 {
			t.Fatalf("answer %+v, %v to a request that was answered", again, err)
		}
		w, err := published.Watermark(t.Context(), event.Audit)
		if err != nil {
			t.Fatal(err)
		}
		if want := (reconcile.Answered{Digest: request.Digest(), Partly: sent < missing}); w.Answered["g"] != want {
			t.Errorf("answered %+v, want %+v", w.Answered["g"], want)
		}
		// The consumer asks again when it has recorded what was sent. It has come to the
		// last part of the hour.
		request.Answers, request.Chunk.IDs = w.Answers["g"], nil
		const last = `SELECT array(SELECT event_id::text FROM outbox ORDER BY event_id OFFSET $1 LIMIT 10)`
		if err := db.QueryRow(t.Context(), last, sent-10).Scan(&request.Chunk.IDs); err != nil {
			t.Fatal(err)
		}
		request.Chunk.From = request.Chunk.IDs[0]
	}
	wantAdded(t, client, missing)
}

// TestAnswerUnknownEpoch: a range of an epoch that the outbox does not have is no range of
// another epoch.
func TestAnswerUnknownEpoch(t *testing.T) {
	t.Parallel()
	db, client := testkit.Database(t, outbox.Schema()), testkit.Redis(t)
	fill(t, db, 10)
	request := reconcile.RepublishRequest{Group: "g", Ranges: []reconcile.EpochRange{{Epoch: "other", SeqRange: reconcile.SeqRange{First: 1, Last: 10}}}}
	answer, err := newPublished(t, db, client).Answer(t.Context(), event.Audit, request)
	if err != nil || answer.Sent != 0 || !answer.Done {
		t.Errorf("answer %+v, %v", answer, err)
	}
}

// TestAnswerPreviousConsumer: a request of the release without epochs gets what was
// published before the time up to which the group had caught up, but no late event.
func TestAnswerPreviousConsumer(t *testing.T) {
	t.Parallel()
	db, client := testkit.Database(t, outbox.Schema()), testkit.Redis(t)
	fill(t, db, 10)
	if _, err := db.Exec(t.Context(), `UPDATE outbox SET published_at = now() - interval '1 hour' WHERE seq < 4`); err != nil {
		t.Fatal(err)
	}
	request := reconcile.RepublishRequest{
		Group: "g", CaughtUp: time.Now(), Answers: 99, Ranges: []reconcile.EpochRange{{SeqRange: reconcile.SeqRange{First: 2, Last: 10}}},
	}
	published := newPublished(t, db, client)
	for _, want := range []int64{2, 0} {
		answer, err := published.Answer(t.Context(), event.Audit, request)
		if err != nil || answer.Sent != want {
			t.Errorf("%d events were sent, %v, want %d", answer.Sent, err, want)
		}
	}
}
