package deadletter_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/deadletter"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/outbox"
	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/pkg/web"
)

// consumer is a service with dead letters, seen by an administrator.
type consumer struct {
	*httptest.Server
	t      *testing.T
	db     *postgres.Pool
	issuer *testkit.Issuer
	stream *bus.Publisher

	mu      sync.Mutex
	fault   error
	handled map[string]int
	before  func(id string) // called before each event is handled
}

func newConsumer(t *testing.T) *consumer {
	t.Helper()
	c := &consumer{
		t: t, db: testkit.Database(t, outbox.Schema(), deadletter.Schema()), issuer: testkit.NewIssuer(t),
		fault: event.ErrMalformed, handled: map[string]int{}, before: func(string) {},
	}
	client, log := testkit.Redis(t), testkit.Log(t)
	c.stream = bus.NewPublisher(client)
	deadLetters := deadletter.New(c.db, outbox.New("test"), time.Now)
	c.Server = httptest.NewServer(web.NewRouter(deadLetters.Routes("/api/v1/email"), web.Options{
		Auth: c.issuer.Verifier(), Log: log, Metrics: prometheus.NewRegistry(),
	}))
	t.Cleanup(c.Close)
	testkit.Run(t, bus.NewConsumer(bus.ConsumerConfig{
		Topic:       event.Email,
		Subscriber:  bus.NewSubscriber(bus.SubscriberConfig{Client: client, Group: "email-service", Consumer: "a", Log: log}),
		Due:         []message.Subscriber{bus.NewPoller(deadLetters.Replays(log)), bus.NewPoller(deadLetters.Replays(log))},
		Handlers:    map[string]bus.Handler{event.UserVerificationRequested{}.EventName(): c.handle},
		DeadLetters: deadLetters, Log: log, Metrics: prometheus.NewRegistry(),
	}))
	return c
}

func (c *consumer) handle(_ context.Context, e event.Event) error {
	c.mu.Lock()
	before := c.before
	c.mu.Unlock()
	before(e.ID)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fault == nil {
		c.handled[e.ID]++
	}
	return c.fault
}

func (c *consumer) slow(before func(id string)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.before = before
}

func (c *consumer) repair(fault error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fault = fault
}

func (c *consumer) publish(n int) (ids []string) {
	c.t.Helper()
	for range n {
		id, payload := sealedEvent(c.t)
		ids = append(ids, id)
		if err := c.stream.Publish(string(event.Email), message.NewMessage(id, []byte(payload))); err != nil {
			c.t.Fatal(err)
		}
	}
	return ids
}

type reply struct {
	status int
	Code   string
	Data   json.RawMessage
}

func (c *consumer) do(method, path, body string) reply {
	c.t.Helper()
	req, err := http.NewRequestWithContext(c.t.Context(), method, c.URL+"/api/v1/email/dead-letters"+path, bytes.NewReader([]byte(body)))
	if err != nil {
		c.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+c.issuer.Token(token.Identity{UserID: "admin-1", Role: token.RoleAdmin}))
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer res.Body.Close()
	r := reply{status: res.StatusCode}
	if err := json.NewDecoder(res.Body).Decode(&r); err != nil {
		c.t.Fatal(err)
	}
	return r
}

func (c *consumer) deadLetters(status string, n int) []deadletter.DeadLetter {
	c.t.Helper()
	var deadLetters []deadletter.DeadLetter
	testkit.Eventually(c.t, func() error {
		deadLetters = nil
		if err := json.Unmarshal(c.do(http.MethodGet, "?status="+status, "").Data, &deadLetters); err != nil {
			return err
		}
		if len(deadLetters) != n {
			return fmt.Errorf("%d dead letters are %s, want %d", len(deadLetters), status, n)
		}
		return nil
	})
	return deadLetters
}

func (c *consumer) wantHandled(ids ...string) {
	c.t.Helper()
	testkit.Eventually(c.t, func() error {
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, id := range ids {
			if c.handled[id] != 1 {
				return fmt.Errorf("event %s was handled %d times", id, c.handled[id])
			}
		}
		return nil
	})
}

func (c *consumer) audited(name string) int {
	c.t.Helper()
	var n int
	err := c.db.QueryRow(c.t.Context(), `SELECT count(*) FROM outbox WHERE name = $1 AND payload ->> 'subject' <> ''
		AND payload -> 'actor' ->> 'id' = 'admin-1'`, name).Scan(&n)
	if err != nil {
		c.t.Fatal(err)
	}
	return n
}

func TestReplay(t *testing.T) {
	t.Parallel()
	c := newConsumer(t)
	ids := c.publish(1)
	deadLetter := c.deadLetters(deadletter.Open, 1)[0]

	// The cause is not fixed: the dead letter is open again, with one more attempt.
	if got := c.do(http.MethodPost, "/"+deadLetter.ID+"/replay", ""); got.status != http.StatusOK {
		t.Fatalf("replay = %d %s", got.status, got.Code)
	}
	testkit.Eventually(t, func() error {
		if again := c.deadLetters(deadletter.Open, 1)[0]; again.ID != deadLetter.ID || again.Attempts != 2 {
			return fmt.Errorf("dead letter = %+v", again)
		}
		return nil
	})

	// The cause is fixed: the event is handled once, with its own id, however often a
	// replay is requested.
	c.repair(nil)
	var wg sync.WaitGroup
	statuses := make([]int, 10)
	for i := range statuses {
		wg.Go(func() { statuses[i] = c.do(http.MethodPost, "/"+deadLetter.ID+"/replay", "").status })
	}
	wg.Wait()
	good := 0
	for _, status := range statuses {
		switch status {
		case http.StatusOK:
			good++
		case http.StatusConflict:
		default:
			t.Errorf("replay = %d", status)
		}
	}
	if good != 1 {
		t.Errorf("%d of 10 replays at the same time were taken", good)
	}
	c.wantHandled(ids...)
	c.deadLetters(deadletter.Replayed, 1)
	if n := c.audited("dead_letter.replayed.v1"); n != 2 {
		t.Errorf("%d replays are audited, want 2", n)
	}
	testkit.Eventually(t, func() error {
		var due int
		err := c.db.QueryRow(t.Context(), `SELECT count(*) FROM dead_letters WHERE replay_due IS NOT NULL`).Scan(&due)
		if err == nil && due > 0 {
			err = errors.New("the replay is still due")
		}
		return err
	})
}

func TestReplayByFilter(t *testing.T) {
	t.Parallel()
	c := newConsumer(t)
	ids := c.publish(7)
	if err := c.stream.Publish(string(event.Email), message.NewMessage(uuid.NewString(), []byte("junk"))); err != nil {
		t.Fatal(err)
	}
	c.deadLetters(deadletter.Open, 8)
	for body, want := range map[string]int{
		`{}`: http.StatusBadRequest, `{"max":0}`: http.StatusBadRequest, `{"max":1001}`: http.StatusBadRequest, `{"max":"5"}`: http.StatusBadRequest,
		`{"max":5,"all":true}`: http.StatusBadRequest, `{"max":5,"type":""}`: http.StatusBadRequest, `{"max":5,"reason":" "}`: http.StatusBadRequest, `{"max":5,"type":null}`: http.StatusBadRequest, `{"max":5,"reason":null}`: http.StatusBadRequest,
		`{"max":5,"dryRun":null}`: http.StatusBadRequest, ``: http.StatusBadRequest,
	} {
		if got := c.do(http.MethodPost, "/replay", body); got.status != want {
			t.Errorf("replay %s = %d %s, want %d", body, got.status, got.Code, want)
		}
	}
	replay := func(body string, want deadletter.Outcome) {
		t.Helper()
		var got deadletter.Outcome
		if err := json.Unmarshal(c.do(http.MethodPost, "/replay", body).Data, &got); err != nil || got != want {
			t.Errorf("replay %s = %+v, %v, want %+v", body, got, err, want)
		}
	}
	replay(`{"max":100,"dryRun":true}`, deadletter.Outcome{Matched: 7, NotReplayable: 1})
	replay(`{"type":"user.verification_requested.v1","max":100,"dryRun":true}`, deadletter.Outcome{Matched: 7})
	replay(`{"reason":"malformed","max":100,"dryRun":true}`, deadletter.Outcome{Matched: 7, NotReplayable: 1})
	replay(`{"type":"other.event.v1","max":100}`, deadletter.Outcome{})
	replay(`{"reason":"no such reason","max":100}`, deadletter.Outcome{})
	c.deadLetters(deadletter.Open, 8)
	c.repair(nil)
	replay(`{"type":"user.verification_requested.v1","reason":"malformed","max":3}`, deadletter.Outcome{Matched: 7, Requested: 3})
	replay(`{"max":100}`, deadletter.Outcome{Matched: 4, Requested: 4, NotReplayable: 1})
	c.wantHandled(ids...)
	c.deadLetters(deadletter.Open, 1) // the junk
	if n := c.audited("dead_letter.replayed.v1"); n != 7 {
		t.Errorf("%d replays are audited, want 7", n)
	}
}

// TestManyReplays is REL-62: the replays of 509 dead letters, each of which takes as long
// as it likes, have a bounded number of events in flight, and new events of the stream
// are handled at once.
func TestManyReplays(t *testing.T) {
	t.Parallel()
	const many, limit = 509, 2 * 16 // two sources
	c := newConsumer(t)
	store := deadletter.New(c.db, outbox.New("test"), time.Now)
	replayed := map[string]bool{}
	for range many {
		_, payload := sealedEvent(t)
		m := poisoned(t, payload, "a fault")
		replayed[m.UUID] = true
		if err := store.Publish("", m); err != nil {
			t.Fatal(err)
		}
	}
	release := make(chan struct{})
	var inFlight atomic.Int64
	c.slow(func(id string) {
		if replayed[id] {
			inFlight.Add(1)
			defer inFlight.Add(-1)
			<-release
		}
	})
	c.repair(nil)
	if got, err := store.ReplayMatching(t.Context(), deadletter.Filter{}, 1000); err != nil || got.Requested != many {
		t.Fatalf("ReplayMatching() = %+v, %v", got, err)
	}
	testkit.Eventually(t, func() error {
		if n := inFlight.Load(); n < limit {
			return fmt.Errorf("%d replays in flight", n)
		}
		return nil
	})
	fresh := c.publish(100)
	c.wantHandled(fresh...)                           // while the replays are in flight
	another := time.NewTimer(1500 * time.Millisecond) // The pollers have polled again.
	<-another.C
	if n := inFlight.Load(); n > limit {
		t.Errorf("%d replays in flight, want at most %d", n, limit)
	}
	close(release)
	testkit.Eventually(t, func() error {
		var n int
		err := c.db.QueryRow(t.Context(), `SELECT count(*) FROM dead_letters WHERE status = 'replayed'`).Scan(&n)
		if err == nil && n != many {
			err = fmt.Errorf("%d dead letters are replayed of %d", n, many)
		}
		return err
	})
}

func TestDiscard(t *testing.T) {
	t.Parallel()
	c := newConsumer(t)
	if err := c.stream.Publish(string(event.Email), message.NewMessage(uuid.NewString(), []byte("junk"))); err != nil {
		t.Fatal(err)
	}
	deadLetter := c.deadLetters(deadletter.Open, 1)[0]
	for _, tc := range []struct {
		method, path, body string
		status             int
		code               string
	}{
		{http.MethodPost, "/" + deadLetter.ID + "/replay", "", http.StatusConflict, "dead_letter_not_replayable"},
		{http.MethodDelete, "/" + deadLetter.ID, `{"reason":" "}`, http.StatusBadRequest, "validation_failed"},
		{http.MethodDelete, "/" + deadLetter.ID, `{"reason":"` + strings.Repeat("x", 501) + `"}`, http.StatusBadRequest, "validation_failed"},
		{http.MethodDelete, "/" + uuid.NewString(), `{"reason":"x"}`, http.StatusNotFound, "dead_letter_not_found"},
		{http.MethodDelete, "/junk", `{"reason":"x"}`, http.StatusNotFound, "dead_letter_not_found"},
		{http.MethodPost, "/" + uuid.NewString() + "/replay", "", http.StatusNotFound, "dead_letter_not_found"},
		{http.MethodDelete, "/" + deadLetter.ID, `{"reason":"a test\u0000 entry"}`, http.StatusBadRequest, "validation_failed"},
		{http.MethodDelete, "/" + deadLetter.ID, `{"reason":"a test\r\n\tentry"}`, http.StatusOK, ""},
		{http.MethodDelete, "/" + deadLetter.ID, `{"reason":"x"}`, http.StatusConflict, "dead_letter_closed"},
		{http.MethodPost, "/" + deadLetter.ID + "/replay", "", http.StatusConflict, "dead_letter_closed"},
	} {
		if got := c.do(tc.method, tc.path, tc.body); got.status != tc.status || got.Code != tc.code {
			t.Errorf("%s %s %s = %d %s, want %d %s", tc.method, tc.path, tc.body, got.status, got.Code, tc.status, tc.code)
		}
	}
	var detail deadletter.Detail
	if err := json.Unmarshal(c.do(http.MethodGet, "/"+deadLetter.ID, "").Data, &detail); err != nil {
		t.Fatal(err)
	}
	if detail.Status != deadletter.Discarded || detail.ClosedBy != "admin:admin-1" || detail.ClosedAt == nil || !strings.HasPrefix(detail.Note, "a test") {
		t.Errorf("detail = %+v", detail)
	}
	if n := c.audited("dead_letter.discarded.v1"); n != 1 {
		t.Errorf("%d discards are audited, want 1", n)
	}
}
