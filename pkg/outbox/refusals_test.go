package outbox_test

import (
	"context"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/outbox"
	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/pkg/testkit"
)

// recorded is what an audit record says about requests of strangers.
type recorded struct {
	IP, Code       string
	Count          int // 0 stands for one request
	Since, Through time.Duration
}

// recordedSince returns the events in the outbox, with times since start.
func recordedSince(t *testing.T, db *postgres.Pool, start time.Time) []recorded {
	t.Helper()
	rows, err := db.Query(context.Background(), `SELECT payload FROM outbox ORDER BY id`)
	if err != nil {
		t.Fatal(err)
	}
	found, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (recorded, error) {
		var payload []byte
		if err := row.Scan(&payload); err != nil {
			return recorded{}, err
		}
		e, err := event.Parse(payload)
		if err != nil {
			return recorded{}, err
		}
		p, err := event.Decode[event.RequestRefused](e)
		out := recorded{IP: e.IP, Code: p.Code, Count: p.Count, Through: e.OccurredAt.Sub(start)}
		if !p.Since.IsZero() {
			out.Since = p.Since.Sub(start)
		}
		return out, err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// refusals is Refusals with a clock that the test advances.
type refusals struct {
	*outbox.Refusals
	t       *testing.T
	db      *postgres.Pool
	start   time.Time
	elapsed atomic.Int64
}

func newRefusals(t *testing.T) *refusals {
	t.Helper()
	rs := &refusals{t: t, db: testkit.Database(t, outbox.Schema()), start: time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)}
	rs.Refusals = outbox.NewRefusals(outbox.New("test"), rs.db, testkit.Log(t), func() time.Time { return rs.start.Add(time.Duration(rs.elapsed.Load())) })
	return rs
}

// refuse records a refused request, and lets a second pass.
func (rs *refusals) refuse(ip, code string) {
	ctx := event.WithOrigin(rs.t.Context(), event.Origin{Actor: event.Actor{Type: "anonymous"}, IP: ip})
	rs.Refused(ctx, event.RequestRefused{Method: "POST", Route: "/api/v1/auth/verify-email", Code: code})
	rs.elapsed.Add(int64(time.Second))
}

// stored returns the events in the outbox.
func (rs *refusals) stored() []event.Event {
	rs.t.Helper()
	rows, err := rs.db.Query(rs.t.Context(), `SELECT payload FROM outbox ORDER BY id`)
	if err != nil {
		rs.t.Fatal(err)
	}
	found, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (event.Event, error) {
		var payload []byte
		if err := row.Scan(&payload); err != nil {
			return event.Event{}, err
		}
		return event.Parse(payload)
	})
	if err != nil {
		rs.t.Fatal(err)
	}
	return found
}

func (rs *refusals) flush() {
	rs.t.Helper()
	if err := rs.Flush(rs.t.Context()); err != nil {
		rs.t.Fatal(err)
	}
}

func (rs *refusals) want(want ...recorded) {
	rs.t.Helper()
	if diff := cmp.Diff(want, recordedSince(rs.t, rs.db, rs.start)); diff != "" {
		rs.t.Errorf("events (-want +got):\n%s", diff)
	}
}

func TestSEC112StrangersAreRecordedOnceAndThenCounted(t *testing.T) {
	t.Parallel()
	rs := newRefusals(t)
	for range 50 {
		rs.refuse("192.0.2.1", "token_invalid")
	}
	rs.refuse("198.51.100.1", "token_invalid")
	rs.refuse("192.0.2.1", "token_expired")
	rs.refuse("2001:db8::1", "token_invalid")
	rs.refuse("2001:db8::2", "token_invalid") // the same network
	first := []recorded{
		{IP: "192.0.2.1", Code: "token_invalid"},
		{IP: "198.51.100.1", Code: "token_invalid", Through: 50 * time.Second},
		{IP: "192.0.2.1", Code: "token_expired", Through: 51 * time.Second},
		{IP: "2001:db8::1", Code: "token_invalid", Through: 52 * time.Second},
	}
	rs.want(first...)

	rs.flush()
	found := recordedSince(t, rs.db, rs.start)[len(first):]
	if len(found) == 2 && found[0].IP != "192.0.2.1" {
		found[0], found[1] = found[1], found[0] // Their order does not matter.
	}
	counts := []recorded{
		{IP: "192.0.2.1", Code: "token_invalid", Count: 49, Since: time.Second, Through: 49 * time.Second},
		{IP: "2001:db8::1", Code: "token_invalid", Through: 53 * time.Second},
	}
	if diff := cmp.Diff(counts, found); diff != "" {
		t.Errorf("counts (-want +got):\n%s", diff)
	}

	rs.flush() // Nothing happened, so nothing is stored, and the next time is the first again.
	rs.refuse("192.0.2.1", "token_invalid")
	if found := recordedSince(t, rs.db, rs.start); len(found) != 7 || found[6].Count != 0 {
		t.Errorf("events after a quiet minute = %+v, want one more", found)
	}
}

// However many networks the requests come from, they leave a bounded number of rows, take a
// bounded amount of memory, and all of them are counted.
func TestSEC112StrangersOfManyNetworksAreBounded(t *testing.T) {
	rs := newRefusals(t)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	const networks = 20_000
	for i := range networks {
		rs.refuse(fmt.Sprintf("2001:db8:%x::1", i), "token_invalid")
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if after.HeapAlloc > before.HeapAlloc+4<<20 {
		t.Errorf("the heap grew by %d KB, want at most 4 MB", (after.HeapAlloc-before.HeapAlloc)>>10)
	}
	rs.flush()
	found, total := recordedSince(t, rs.db, rs.start), 0
	for _, e := range found {
		total += max(1, e.Count)
		if e.Count > 1 && e.IP != "" {
			t.Errorf("a count of many networks has the address %s", e.IP)
		}
	}
	if len(found) > 1001 || total != networks {
		t.Errorf("%d events for %d requests, want at most 1001 for %d", len(found), total, networks)
	}
}

// refuseUser records a refused request of a signed-in user.
func (rs *refusals) refuseUser(id, ip, code string) {
	ctx := event.WithOrigin(rs.t.Context(), event.Origin{Actor: event.Actor{Type: "user", ID: id}, IP: ip, UserAgent: "agent"})
	rs.Refused(ctx, event.RequestRefused{Method: "POST", Route: "/", Code: code})
	rs.elapsed.Add(int64(time.Second))
}

// The first refusal of a signed-in user is recorded in full, and further ones are counted,
// from whatever network. Strangers beyond the limit do not make users anonymous.
func TestSEC109SignedInUsersAreRecordedOnceAndThenCounted(t *testing.T) {
	t.Parallel()
	rs := newRefusals(t)
	for i := range 2_000 {
		rs.refuse(fmt.Sprintf("2001:db8:%x::1", i), "token_invalid")
	}
	rs.flush()
	before := len(rs.stored())
	for i := range 300 {
		rs.refuseUser("ann", fmt.Sprintf("192.0.2.%d", i%250), "conflict")
	}
	rs.refuseUser("bob", "192.0.2.1", "conflict")
	first := rs.stored()[before:]
	if len(first) != 2 || first[0].Actor.ID != "ann" || first[0].Subject != "ann" || first[0].IP != "192.0.2.0" || first[0].UserAgent != "agent" || first[1].Actor.ID != "bob" {
		t.Errorf("recorded at once: %+v, want one event of each user, in full", first)
	}
	rs.flush()
	counts := rs.stored()[before+2:]
	if len(counts) != 1 {
		t.Fatalf("counts = %+v, want one event", counts)
	}
	p, err := event.Decode[event.RequestRefused](counts[0])
	if err != nil || p.Count != 299 || counts[0].Actor != (event.Actor{Type: "user", ID: "ann"}) || counts[0].Subject != "ann" {
		t.Errorf("= %+v %+v, %v; want 299 of ann", counts[0], p, err)
	}
}

// However many accounts there are, they leave a bounded number of rows, and all requests are
// counted.
func TestSEC109ManyAccountsAreBounded(t *testing.T) {
	t.Parallel()
	rs := newRefusals(t)
	const requests = 5_000
	for i := range requests {
		rs.refuseUser(fmt.Sprint("account-", i), "192.0.2.1", "conflict")
	}
	rs.flush()
	total := 0
	found := rs.stored()
	for _, e := range found {
		p, err := event.Decode[event.RequestRefused](e)
		if err != nil {
			t.Fatal(err)
		}
		total += max(1, p.Count)
		if p.Count > 1 && (e.Actor.ID != "" || e.Subject != "" || e.IP != "") {
			t.Errorf("a count of many accounts is of %+v", e)
		}
	}
	if len(found) > 1001 || total != requests {
		t.Errorf("%d events for %d requests, want at most 1001 for %d", len(found), total, requests)
	}
}

// SEC-108: a deletion leaves no personal data in counts of the account, also in those that are
// stored after it.
func TestSEC109CountsOfErasedAccounts(t *testing.T) {
	t.Parallel()
	rs := newRefusals(t)
	for range 3 {
		rs.refuseUser("ann", "192.0.2.1", "conflict")
	}
	rs.flush()
	rs.refuseUser("ann", "192.0.2.1", "conflict")
	if err := outbox.RequestErasure(t.Context(), rs.db, "ann"); err != nil {
		t.Fatal(err)
	}
	testkit.Run(t, outbox.NewEraser(rs.db, testkit.Log(t)))
	wantErased := func() error {
		for _, e := range rs.stored() {
			if _, left, err := event.Erase(e); err != nil || left || e.IP != "" && e.Actor.ID != "ann" {
				return fmt.Errorf("%+v has personal data: %w", e, err)
			}
		}
		return nil
	}
	testkit.Eventually(t, wantErased)
	rs.flush()
	if err := wantErased(); err != nil || len(rs.stored()) != 3 {
		t.Errorf("after the deletion: %v, %d events", err, len(rs.stored()))
	}
}

// An orderly stop stores what was counted, and an outage of the database loses nothing.
func TestSEC112NoCountIsLost(t *testing.T) {
	t.Parallel()
	rs := newRefusals(t)
	rs.refuse("192.0.2.1", "token_invalid")
	rs.refuse("192.0.2.1", "token_invalid")
	rs.refuse("192.0.2.1", "token_invalid")
	stopped, stop := context.WithCancel(t.Context())
	stop()
	if _, err := rs.db.Exec(t.Context(), `ALTER TABLE outbox RENAME TO unavailable`); err != nil {
		t.Fatal(err)
	}
	if err := rs.Flush(t.Context()); err == nil {
		t.Error("Flush without a table succeeded")
	}
	rs.refuse("192.0.2.1", "token_invalid")
	rs.refuse("198.51.100.1", "token_invalid") // cannot be stored at once
	if _, err := rs.db.Exec(t.Context(), `ALTER TABLE unavailable RENAME TO outbox`); err != nil {
		t.Fatal(err)
	}
	if err := rs.Run(stopped); err != nil {
		t.Fatal(err)
	}
	total := 0
	for _, e := range recordedSince(t, rs.db, rs.start) {
		total += max(1, e.Count)
	}
	if total != 5 {
		t.Errorf("%d requests are recorded, want 5", total)
	}
}
