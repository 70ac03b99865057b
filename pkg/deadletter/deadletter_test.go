package deadletter_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/message/router/middleware"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/deadletter"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/outbox"
	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/pkg/web"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// poisoned returns a message as the poison queue hands it over.
func poisoned(t *testing.T, payload, reason string) *message.Message {
	t.Helper()
	m := message.NewMessage(uuid.NewString(), []byte(payload))
	if e, err := event.Parse(m.Payload); err == nil {
		m.UUID = e.ID
	}
	m.Metadata = message.Metadata{
		bus.TopicKey: "email-events", bus.EntryKey: "1-1", bus.ClassKey: "message",
		middleware.ReasonForPoisonedKey: reason, "name": "x.y.v1",
	}
	return m
}

func sealedEvent(t *testing.T) (id, payload string) {
	t.Helper()
	sealer := testkit.Sealer(t, strings.Repeat("0123456789", 4))
	e := event.New(t.Context(), time.Now(), "s", event.UserVerificationRequested{Token: sealer.Seal("geheim", "")})
	e.ID, e.Producer = uuid.NewString(), "test"
	data, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	return e.ID, string(data)
}

// reader reads dead letters over HTTP.
type reader struct {
	*httptest.Server
	t      *testing.T
	issuer *testkit.Issuer
}

func newReader(t *testing.T, store *deadletter.Store) *reader {
	t.Helper()
	r := &reader{t: t, issuer: testkit.NewIssuer(t)}
	r.Server = httptest.NewServer(web.NewRouter(store.Routes("/api/v1/email"), web.Options{
		Auth: r.issuer.Verifier(), Log: testkit.Log(t), Metrics: prometheus.NewRegistry(),
	}))
	t.Cleanup(r.Close)
	return r
}

// get decodes the response into out and returns its status.
func (r *reader) get(path, role string, out any) int {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodGet, r.URL+"/api/v1/email/dead-letters"+path, http.NoBody)
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+r.issuer.Token(token.Identity{Role: role}))
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(out); err != nil {
		r.t.Fatal(err)
	}
	return res.StatusCode
}

func TestDeadLettersAreReadable(t *testing.T) {
	t.Parallel()
	store := deadletter.New(testkit.Database(t, outbox.Schema(), deadletter.Schema()), outbox.New("test"), time.Now)
	r := newReader(t, store)
	eventID, payload := sealedEvent(t)
	good := poisoned(t, payload, "smtp: 550 no\nstack trace")
	for _, m := range []*message.Message{good, good, poisoned(t, "raw \x00 \xff bytes", "not\x00 JSON"), poisoned(t, `{"junk":"1"}`, "")} {
		if err := store.Publish("ignored", m); err != nil {
			t.Fatalf("Publish(%q) = %v", m.Payload, err)
		}
	}
	var list struct {
		Data []deadletter.DeadLetter
		Meta web.Meta
	}
	if status := r.get("", token.RoleUser, &list); status != http.StatusForbidden {
		t.Errorf("as a user = %d", status)
	}
	if status := r.get("?limit=2", token.RoleAdmin, &list); status != http.StatusOK || len(list.Data) != 2 || !list.Meta.HasMore {
		t.Fatalf("first page = %d %+v", status, list)
	}
	seen := list.Data
	list.Data = nil
	r.get("?limit=2&cursor="+list.Meta.NextCursor, token.RoleAdmin, &list)
	seen = append(seen, list.Data...)
	if len(seen) != 3 {
		t.Fatalf("%d dead letters, want 3: a message that fails again has one dead letter", len(seen))
	}
	if first := seen[2]; *first.EventID != eventID || first.Reason != "smtp: 550 no" || first.Attempts != 2 {
		t.Errorf("letter = %+v", first)
	}
	if seen[0].EventID != nil {
		t.Errorf("an entry without an event has the event id %s", *seen[0].EventID)
	}
	var detail struct{ Data deadletter.Detail }
	if status := r.get("/"+seen[2].ID, token.RoleAdmin, &detail); status != http.StatusOK {
		t.Fatalf("detail = %d", status)
	}
	if text := fmt.Sprint(detail.Data.Payload); !strings.Contains(text, "[sealed]") || strings.Contains(text, "s1.") {
		t.Errorf("payload = %s", text)
	}
	cursor := func(key string) string { return base64.RawURLEncoding.EncodeToString([]byte(key)) }
	for path, want := range map[string]int{
		"/" + uuid.NewString(): 404, "/junk": 404, "?cursor=anVuaw": 400, "?reason=550": 200,
		"/" + strings.ToUpper(seen[2].ID): 404, "/urn:uuid:" + seen[2].ID: 404,
		"?typ=x": 400, "?status=bogus": 400, "?type=": 400, "?cursor=" + cursor(strings.ToUpper(seen[2].ID)): 400, "?cursor=" + cursor("urn:uuid:"+seen[2].ID): 400,
	} {
		if status := r.get(path, token.RoleAdmin, &list); status != want {
			t.Errorf("GET %s = %d, want %d", path, status, want)
		}
	}
}
