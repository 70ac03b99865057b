package reconcile_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/reconcile"
	"github.com/headgate/headgate/pkg/testkit"
)

// addInHour adds events whose ids were made in the hour that many hours ago.
func (f *fixture) addInHour(ago time.Duration, n int) {
	f.t.Helper()
	low, _ := reconcile.HourIDs(time.Now().Add(-ago).Unix() / 3600)
	err := pgx.BeginFunc(f.t.Context(), f.producer, func(tx pgx.Tx) error {
		for range n {
			e := event.New(f.t.Context(), time.Now(), "subject", event.SessionRefreshed{})
			e.ID = low[:14] + "7" + uuid.NewString()[15:]
			if err := f.box.Add(f.t.Context(), tx, e); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		f.t.Fatal(err)
	}
}

// loseForGood deletes the event with a number from the stream and from the outbox.
func (f *fixture) loseForGood(seq int) {
	f.t.Helper()
	entries, err := f.client.XRange(f.t.Context(), string(event.Audit), "-", "+").Result()
	if err != nil {
		f.t.Fatal(err)
	}
	if err := f.client.XDel(f.t.Context(), string(event.Audit), entries[seq-1].ID).Err(); err != nil {
		f.t.Fatal(err)
	}
	execute(f.t, f.producer, fmt.Sprintf(`DELETE FROM outbox WHERE seq = %d`, seq))
}

// TestUnfilledRange is REL-90: an event that cannot be republished delays no other. What
// Redis loses later is republished at once, although requests for that one event are
// answered once an hour.
func TestUnfilledRange(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.produce()
	f.add(10)
	f.wantPublished()
	f.loseForGood(5)
	stop := f.consume(accept)
	f.wantRecords(9)
	testkit.Eventually(t, func() error {
		var answers, noted int
		if err := f.producer.QueryRow(t.Context(), `SELECT coalesce(sum(answers), 0) FROM outbox_answers`).Scan(&answers); err != nil {
			return err
		}
		if err := f.consumer.QueryRow(t.Context(), `SELECT count(*) FROM unfilled_ranges`).Scan(&noted); err != nil || answers == 0 || noted == 0 {
			return fmt.Errorf("%d answers, %d unfilled ranges, %w", answers, noted, err)
		}
		return nil
	})
	stop()
	execute(t, f.producer, `UPDATE outbox_answers SET attempts = 12, answered_at = now()`)
	execute(t, f.consumer, `UPDATE unfilled_ranges SET attempts = 12, next_at = now() + interval '59 minutes'`)
	f.add(10) // without a consumer
	f.wantPublished()
	f.flush()
	f.consume(accept)
	f.wantRecords(19)
	f.eventuallyReports("producer/EPOCH:5  1 event is missing")
	if n := f.republished(); n != 10 {
		t.Errorf("%d events were republished, want 10", n)
	}
}

// TestUnfilledRangeIsRequestedAgain is REL-90: a range that could not be filled is
// requested again after a pause.
func TestUnfilledRangeIsRequestedAgain(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.produce()
	f.add(10)
	f.wantPublished()
	execute(t, f.producer, `CREATE TABLE away AS SELECT * FROM outbox WHERE seq = 5`)
	f.loseForGood(5)
	f.consume(accept)
	f.wantRecords(9)
	var attempts int
	testkit.Eventually(t, func() error {
		return f.consumer.QueryRow(t.Context(), `SELECT attempts FROM unfilled_ranges`).Scan(&attempts)
	})
	execute(t, f.producer, `INSERT INTO outbox OVERRIDING SYSTEM VALUE SELECT * FROM away`)
	f.wantRecords(10)
	f.eventuallyReports()
}

// TestHoursBesideUnfilledRange is REL-90: an hour that differs is found although a number
// stays missing.
func TestHoursBesideUnfilledRange(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.produce()
	f.addInHour(2*time.Hour, 5)
	f.addInHour(time.Hour, 5)
	f.wantPublished()
	f.loseForGood(3)
	stop := f.consume(accept)
	f.wantRecords(9)
	stop()
	// As if a number had been given twice: another event has the record of number 8.
	execute(t, f.consumer, `UPDATE consumed_events SET event_id = (left(event_id::text, 14) || right(gen_random_uuid()::text, 22))::uuid WHERE seq = 8;
		UPDATE epoch_checksums SET matched = false, asked_at = NULL`)
	f.consume(accept)
	f.wantRecords(10)
}

// TestUnfilledRangesLeaveRoom is REL-90: numbers that the producer cannot republish, as
// many as a request may ask for, are not all that is ever requested.
func TestUnfilledRangesLeaveRoom(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.log = slog.New(slog.DiscardHandler)
	f.consume(accept)
	w := `{"producer":"producer","topic":"audit-events","at":%q,"first":1,"seq":50,"epoch":"B","hours":[],
		"closed":[{"epoch":"A","first":1,"seq":99990,"last":99990,"known":99990}],"answers":{"consumer":%d},"answered":{"consumer":{"digest":%q}}}`
	f.wantRequest("[{A {1 99990}} {B {1 10}}]", w, 0, "")
	request, err := f.request()
	if err != nil {
		t.Fatal(err)
	}
	f.wantRequest("[{B {11 50}}]", w, 1, request.Digest())
}

// wantRequest posts a watermark until the consumer requests these ranges.
func (f *fixture) wantRequest(want, watermark string, answers int, digest string) {
	f.t.Helper()
	testkit.Eventually(f.t, func() error {
		f.post(fmt.Sprintf(watermark, time.Now().UTC().Format(time.RFC3339Nano), answers, digest))
		request, err := f.request()
		if err != nil {
			return err
		}
		if got := fmt.Sprint(request.Ranges); got != want {
			return fmt.Errorf("ranges %s, want %s", got, want)
		}
		return nil
	})
}

// post posts a watermark in the place of a producer.
func (f *fixture) post(watermark string) {
	f.t.Helper()
	if err := f.client.Set(f.t.Context(), "watermark:published:{audit-events}:producer", watermark, 0).Err(); err != nil {
		f.t.Fatal(err)
	}
}

// TestAnswerToAnother is REL-90: an instance does not take the answer to a request of
// another instance for its own, and requests the rest of an hour that was answered in
// part. Otherwise the hour would not be requested again before an hour has passed.
func TestAnswerToAnother(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.consume(accept)
	f.consume(accept)
	hour := time.Now().Unix()/3600 - 1
	low, _ := reconcile.HourIDs(hour)
	w := reconcile.Watermark{Answers: map[string]int64{"consumer": 5}, EpochWatermark: reconcile.EpochWatermark{
		Epoch: "E", First: 1, Seq: 1, Hours: []reconcile.HourlyChecksum{{Hour: hour, Count: 1, Sum: "1", LastSeq: 1}},
	}}
	execute(t, f.consumer, fmt.Sprintf(`
		INSERT INTO consumed_events (topic, producer, epoch, seq, event_id) VALUES ('audit-events', 'producer', 'E', 1, '%s')`, low))
	// requested posts the watermark until the group requests the chunk on its basis.
	requested := func() (request reconcile.RepublishRequest) {
		t.Helper()
		testkit.Eventually(t, func() (err error) {
			w.At = time.Now()
			data, err := json.Marshal(w)
			if err != nil {
				return err
			}
			f.post(string(data))
			request, err = f.request()
			if err == nil && (request.Chunk == nil || request.Chunk.From != low || request.Answers != w.Answers["consumer"]) {
				err = fmt.Errorf("request %+v", request)
			}
			return err
		})
		return request
	}
	digest := requested().Digest()
	for _, answered := range []reconcile.Answered{{Digest: "another"}, {Digest: digest, Partly: true}} {
		w.Answers["consumer"]++
		w.Answered = map[string]reconcile.Answered{"consumer": answered}
		requested()
	}
	w.Answers["consumer"]++
	w.Answered["consumer"] = reconcile.Answered{Digest: digest}
	testkit.Eventually(t, func() error {
		w.At = time.Now()
		data, err := json.Marshal(w)
		if err != nil {
			return err
		}
		f.post(string(data))
		if request, err := f.request(); err == nil {
			return fmt.Errorf("request %+v", request)
		}
		return nil
	})
}
