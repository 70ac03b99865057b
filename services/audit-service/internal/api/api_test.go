package api_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/deadletter"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/outbox"
	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/pkg/reconcile"
	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/pkg/web"
	"github.com/headgate/headgate/services/audit-service/internal/api"
	"github.com/headgate/headgate/services/audit-service/internal/store"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// service is audit-service: its routes over HTTP and its consumer.
type service struct {
	*httptest.Server
	t      *testing.T
	issuer *testkit.Issuer
	redis  *redis.Client
	log    *store.Store
	db     *postgres.Pool
	routes []web.Route
}

func newService(t *testing.T) *service {
	t.Helper()
	db := testkit.Database(t, outbox.Schema(), deadletter.Schema(), reconcile.WatermarksSchema(), store.Schema())
	s := &service{t: t, issuer: testkit.NewIssuer(t), redis: testkit.Redis(t), log: store.New(db), db: db}
	deadLetters, log, metrics := deadletter.New(db, outbox.New("audit-service"), time.Now), testkit.Log(t), prometheus.NewRegistry()
	s.routes = append(api.Routes(s.log), deadLetters.Routes(api.Prefix)...)
	s.Server = httptest.NewServer(web.NewRouter(s.routes, web.Options{
		Auth: s.issuer.Verifier(), Log: log, Metrics: metrics, Read: outbox.New("audit-service").Reads(db),
	}))
	t.Cleanup(s.Close)
	testkit.Run(t, bus.NewConsumer(bus.ConsumerConfig{
		Topic:      event.Audit,
		Subscriber: bus.NewSubscriber(bus.SubscriberConfig{Client: s.redis, Group: "audit-service", Consumer: "a", Log: log}),
		Rest:       s.log.Add, DeadLetters: deadLetters, Log: log, Metrics: metrics,
	}))
	return s
}

// newEvent returns an event with payload p and an origin.
func newEvent(subject string, origin event.Origin, p event.Payload) event.Event {
	return testkit.NewEvent(event.WithOrigin(context.Background(), origin), subject, p)
}

func (s *service) publish(events ...event.Event) {
	s.t.Helper()
	testkit.Publish(s.t, s.redis, event.Audit, events...)
}

type answer struct {
	status int
	Data   json.RawMessage
	Meta   web.Meta
	Code   string
	Errors []problem.Field
}

func (s *service) get(path string, caller token.Identity) answer {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, s.URL+api.Prefix+path, http.NoBody)
	if err != nil {
		s.t.Fatal(err)
	}
	if caller.Role != "" {
		req.Header.Set("Authorization", "Bearer "+s.issuer.Token(caller))
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	a := answer{status: res.StatusCode}
	if err := json.NewDecoder(res.Body).Decode(&a); err != nil {
		s.t.Fatal(err)
	}
	return a
}

var admin = token.Identity{Role: token.RoleAdmin}

// records returns every record that a query selects, page by page.
func (s *service) records(path string, query url.Values, caller token.Identity) []store.Record {
	s.t.Helper()
	var all []store.Record
	for {
		a := s.get(path+"?"+query.Encode(), caller)
		if a.status != http.StatusOK {
			s.t.Fatalf("GET %s?%s = %d %s %v", path, query.Encode(), a.status, a.Code, a.Errors)
		}
		var page []store.Record
		if err := json.Unmarshal(a.Data, &page); err != nil {
			s.t.Fatal(err)
		}
		all = append(all, page...)
		if !a.Meta.HasMore {
			return all
		}
		query.Set("cursor", a.Meta.NextCursor)
	}
}

func (s *service) wantRecords(n int) []store.Record {
	s.t.Helper()
	var all []store.Record
	testkit.Eventually(s.t, func() error {
		if all = s.records("/events", url.Values{}, admin); len(all) != n {
			return fmt.Errorf("%d records, want %d", len(all), n)
		}
		return nil
	})
	return all
}

// TestEveryContractIsRecordedOnce delivers each event five times, some of them at the same
// time.
func TestEveryContractIsRecordedOnce(t *testing.T) {
	t.Parallel()
	s := newService(t)
	var events []event.Event
	for _, p := range event.Contracts() {
		events = append(events, newEvent("subject", event.Origin{Actor: event.Actor{Type: "user", ID: "u"}, IP: "192.0.2.1"}, p))
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() { s.publish(events...) })
	}
	wg.Wait()
	s.wantRecords(len(events))
	last := newEvent("subject", event.Origin{}, event.UserLoggedOut{})
	s.publish(append(events, last)...)
	for _, r := range s.wantRecords(len(events) + 1) {
		if r.Type == "" || r.Version != 1 || r.SubjectID != "subject" || r.RecordedAt.IsZero() || r.Outcome == "" {
			t.Errorf("record = %+v", r)
		}
	}
}

func TestUnknownNamesAreRecordedAndSealedValuesMasked(t *testing.T) {
	t.Parallel()
	s := newService(t)
	e := newEvent("subject", event.Origin{RequestID: "req-1", UserAgent: "curl"}, event.UserLoggedIn{})
	e.Name, e.Data = "moon.landed.v7", json.RawMessage(`{"token":"s1.AAAA","note":"text with \u2028"}`)
	s.publish(e)
	r := s.wantRecords(1)[0]
	if r.Type != "moon.landed" || r.Version != 7 || r.RequestID != "req-1" || r.UserAgent != "curl" || string(r.Data) != `{"note":"text with \u2028","token":"[sealed]"}` {
		t.Errorf("record = %+v %s", r, r.Data)
	}
}

// TestUnrecordableEventsBecomeDeadLetters: an event that Postgres cannot store, and an
// entry that is not a message.
func TestUnrecordableEventsBecomeDeadLetters(t *testing.T) {
	t.Parallel()
	s := newService(t)
	bad := newEvent("subject", event.Origin{UserAgent: "NUL \x00"}, event.UserLoggedIn{})
	s.publish(bad)
	if err := s.redis.XAdd(t.Context(), &redis.XAddArgs{Stream: string(event.Audit), Values: []string{"junk", "1"}}).Err(); err != nil {
		t.Fatal(err)
	}
	s.publish(newEvent("subject", event.Origin{}, event.UserLoggedIn{}))
	s.wantRecords(1)
	testkit.Eventually(t, func() error {
		var deadLetters []deadletter.DeadLetter
		a := s.get("/dead-letters", admin)
		if err := json.Unmarshal(a.Data, &deadLetters); err != nil || len(deadLetters) != 2 {
			return fmt.Errorf("dead letters = %d %s, %w", a.status, a.Data, err)
		}
		return nil
	})
}

// TestFlush: the consumer continues after the loss of its stream and group.
func TestFlush(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.publish(newEvent("subject", event.Origin{}, event.UserLoggedIn{}))
	s.wantRecords(1)
	if err := s.redis.FlushDB(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	s.publish(newEvent("subject", event.Origin{}, event.UserLoggedIn{}))
	s.wantRecords(2)
}

// addRecords adds 31 records of three subjects: ten at start, ten after an hour, ten
// after two hours, and a failure.
func (s *service) addRecords(start time.Time) []event.Event {
	s.t.Helper()
	var events []event.Event
	for i := range 30 {
		e := newEvent(fmt.Sprint("subject-", i%3), event.Origin{
			Actor: event.Actor{Type: "user", ID: fmt.Sprint("actor-", i%2)}, IP: fmt.Sprint("192.0.2.", i%5), RequestID: fmt.Sprint("request-", i),
		}, event.UserLoggedIn{})
		e.OccurredAt = start.Add(time.Duration(i/10) * time.Hour)
		events = append(events, e)
	}
	events = append(events, newEvent("subject-0", event.Origin{}, event.UserLoginFailed{}))
	for _, e := range events {
		if err := s.log.Add(s.t.Context(), e); err != nil {
			s.t.Fatal(err)
		}
	}
	return events
}

func TestFiltersAndPages(t *testing.T) {
	t.Parallel()
	s := newService(t)
	start := time.Now().UTC().Truncate(time.Second)
	s.addRecords(start)
	for _, tc := range []struct {
		query url.Values
		want  int
	}{
		{url.Values{}, 31},
		{url.Values{"limit": {"7"}}, 31},
		{url.Values{"limit": {"1"}, "subjectId": {"subject-1"}}, 10},
		{url.Values{"actorId": {"actor-1"}}, 15},
		{url.Values{"type": {"user.login_failed"}}, 1},
		{url.Values{"outcome": {"failure"}}, 1},
		{url.Values{"ip": {"192.0.2.4"}}, 6},
		{url.Values{"requestId": {"request-9"}}, 1},
		{url.Values{"from": {start.Add(time.Hour).Format(time.RFC3339)}, "to": {start.Add(2 * time.Hour).Format(time.RFC3339)}}, 10},
		{url.Values{"subjectId": {"nobody"}}, 0},
	} {
		seen := map[string]bool{}
		for _, r := range s.records("/events", tc.query, admin) {
			if seen[r.ID] {
				t.Errorf("%v: %s twice", tc.query, r.ID)
			}
			seen[r.ID] = true
		}
		if len(seen) != tc.want {
			t.Errorf("%v: %d records, want %d", tc.query, len(seen), tc.want)
		}
	}
}

func TestInvalidFilters(t *testing.T) {
	t.Parallel()
	s := newService(t)
	for query, field := range map[string]string{
		"type=x": "type", "outcome=x": "outcome", "ip=x": "ip", "from=yesterday": "from", "subjct=x": "subjct",
		"actorId=nobody;": "actorId", "type=user.deleted;outcome=failure": "type", "outcome=": "outcome", "limit=10&limit=20": "limit",
		"actorId=a%": "actorId", "ip=fe80::1%25eth0": "ip", "from=2026-02-01T00:00:00Z&to=2026-01-01T00:00:00Z": "from", "to=2026-01-01T00:00:00+02:00": "to",
		"limit=0": "limit", "cursor=anVuaw": "cursor", "type=user.signed_up&type=user.logged_in": "type", "actorId=%00": "actorId",
	} {
		if a := s.get("/events?"+query, admin); a.status != http.StatusBadRequest || len(a.Errors) == 0 || a.Errors[0].Field != field {
			t.Errorf("%s = %d %v, want 400 for %s", query, a.status, a.Errors, field)
		}
	}
}

// TestOneRecord: an id is accepted in its usual form only, in a path and in a cursor.
func TestOneRecord(t *testing.T) {
	t.Parallel()
	s := newService(t)
	one := s.addRecords(time.Now())[3]
	for _, key := range []string{strings.ToUpper(one.ID), "urn:uuid:" + one.ID, "{" + one.ID + "}"} {
		if a := s.get("/events?cursor="+base64.RawURLEncoding.EncodeToString([]byte(key)), admin); a.status != http.StatusBadRequest {
			t.Errorf("GET with the cursor of %s = %d", key, a.status)
		}
	}
	if a := s.get("/events/"+one.ID, admin); a.status != http.StatusOK {
		t.Errorf("GET one = %d", a.status)
	}
	for _, id := range []string{uuid.NewString(), "junk", "..%2f", strings.ToUpper(one.ID), "urn:uuid:" + one.ID, "{" + one.ID + "}", strings.ReplaceAll(one.ID, "-", "")} {
		if a := s.get("/events/"+id, admin); a.status != http.StatusNotFound {
			t.Errorf("GET %s = %d", id, a.status)
		}
	}
}

func TestWhoMayRead(t *testing.T) {
	t.Parallel()
	s := newService(t)
	for path, want := range map[string]map[string]int{
		"/events":                           {"": 401, "user": 403, "auditor": 200, "admin": 200},
		"/events/" + uuid.NewString():       {"": 401, "user": 403, "auditor": 404, "admin": 404},
		"/me":                               {"": 401, "user": 200, "auditor": 200, "admin": 200},
		"/dead-letters":                     {"": 401, "user": 403, "auditor": 403, "admin": 200},
		"/dead-letters/" + uuid.NewString(): {"": 401, "user": 403, "auditor": 403, "admin": 404},
	} {
		for role, status := range want {
			if a := s.get(path, token.Identity{Role: role}); a.status != status {
				t.Errorf("GET %s as %q = %d, want %d", path, role, a.status, status)
			}
		}
	}
}

// TestMeHidesOthers: the caller's records show nothing personal of other users.
func TestMeHidesOthers(t *testing.T) {
	t.Parallel()
	s := newService(t)
	me := token.Identity{UserID: uuid.NewString(), Role: token.RoleUser}
	mine := event.Origin{Actor: event.Actor{Type: "user", ID: me.UserID}, IP: "192.0.2.1"}
	theirs := event.Origin{Actor: event.Actor{Type: "admin", ID: "the-admin"}, IP: "192.0.2.99", UserAgent: "admin's"}
	for _, e := range []event.Event{
		newEvent(me.UserID, mine, event.UserLoggedIn{}),
		newEvent(me.UserID, theirs, event.SessionRevoked{Reason: "admin"}),
		newEvent("somebody else", mine, event.SessionRevoked{Reason: "geheim"}),
		newEvent("somebody else", theirs, event.UserLoggedIn{}),
	} {
		if err := s.log.Add(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	feed := s.records("/me", url.Values{}, me)
	if len(feed) != 3 {
		t.Fatalf("%d records, want 3", len(feed))
	}
	if feed[0].SubjectID != "" || string(feed[0].Data) != "{}" {
		t.Errorf("an action of the caller on another user shows %+v %s", feed[0], feed[0].Data)
	}
	if feed[1].Actor.ID != "" || feed[1].IP != "" || feed[1].UserAgent != "" || feed[1].Actor.Type != "admin" {
		t.Errorf("an action of an administrator shows %+v", feed[1])
	}
	if feed[2].IP != "192.0.2.1" || feed[2].Actor.ID != me.UserID {
		t.Errorf("an action of the caller shows %+v", feed[2])
	}
}
