package web_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/headgate/headgate/pkg/cursor"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/pkg/web"
)

// readLog is what Options.Read was told.
type readLog struct {
	mu    sync.Mutex
	reads []string
	fault error
}

func (l *readLog) add(ctx context.Context, subject string, p event.Payload) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	data, err := json.Marshal(p)
	if err != nil {
		return err
	}
	l.reads = append(l.reads, strings.Join([]string{event.OriginFrom(ctx).Actor.ID, p.EventName(), string(data), subject}, " "))
	return l.fault
}

func (l *readLog) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	reads := l.reads
	l.reads = nil
	return reads
}

const other = "0198c7a2-0000-7000-8000-000000000002"

func newReads(t *testing.T) (*readLog, func(role, method, path string) (int, http.Header, string)) {
	t.Helper()
	log, issuer := &readLog{}, testkit.NewIssuer(t)
	send := func(w http.ResponseWriter, _ *http.Request) error {
		w.Header().Set("ETag", `"7"`)
		return web.OK(w, http.StatusOK, "the data")
	}
	list := func(w http.ResponseWriter, r *http.Request) error {
		page, err := web.QueryOf(r).Page()
		if err != nil {
			return err
		}
		return web.SendPage(w, page, []string{"a", "b", "c"}, cursor.ByID)
	}
	absent := func(http.ResponseWriter, *http.Request) error { return problem.ErrNotFound }
	server := httptest.NewServer(web.NewRouter([]web.Route{
		{Method: http.MethodGet, Path: "/list", Access: web.AuditReaders, Query: web.TakesPage(), Handler: list},
		{Method: http.MethodPost, Path: "/list", Access: web.AuditReaders, Query: web.TakesPage(), Handler: list},
		{Method: http.MethodGet, Path: "/things/{id}", Access: web.AdminOnly, Handler: send},
		{Method: http.MethodGet, Path: "/people/{id}", Access: web.AdminOnly.OrSelf(), Handler: send},
		{Method: http.MethodGet, Path: "/absent/{id}", Access: web.AdminOnly, Handler: absent},
		{Method: http.MethodGet, Path: "/own", Access: web.SignedIn, Handler: send},
		{Method: http.MethodGet, Path: "/recorded", Access: web.AdminOnly, Handler: send, Recorded: true},
	}, web.Options{Auth: issuer.Verifier(), Log: testkit.Log(t), Metrics: prometheus.NewRegistry(), Read: log.add}))
	t.Cleanup(server.Close)
	return log, func(role, method, path string) (int, http.Header, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, server.URL+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+issuer.Token(token.Identity{UserID: callerID, Role: role}))
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, res.Header, string(body)
	}
}

const callerID = "0198c7a2-0000-7000-8000-000000000001"

// SEC-107: every successful read of a route that only privileged callers may call is
// recorded once, with the caller, the route, the object and the number of items. A read of
// one's own data and a read that fails are not.
func TestSEC107PrivilegedReadsAreRecorded(t *testing.T) {
	t.Parallel()
	log, do := newReads(t)
	const name = callerID + " audit.read.v1 "
	for _, tc := range []struct {
		role, method, path string
		status             int
		want               []string
	}{
		{"auditor", "GET", "/list", 200, []string{name + `{"route":"/list","found":3} `}},
		{"admin", "GET", "/list?limit=2", 200, []string{name + `{"route":"/list","found":2} `}},
		{"admin", "HEAD", "/list", 200, []string{name + `{"route":"/list","found":3} `}},
		{"admin", "GET", "/list?limit=x", 400, nil},
		{"user", "GET", "/list", 403, nil},
		{"admin", "POST", "/list", 200, nil},
		{"admin", "GET", "/things/7", 200, []string{name + `{"route":"/things/{id}","objectId":"7"} `}},
		{"admin", "GET", "/people/" + other, 200, []string{name + `{"route":"/people/{id}","objectId":"` + other + `"} ` + other}},
		{"admin", "GET", "/people/" + callerID, 200, nil},
		{"user", "GET", "/people/" + strings.ToUpper(callerID), 200, nil},
		{"user", "GET", "/people/" + other, 403, nil},
		{"admin", "GET", "/absent/7", 404, nil},
		{"admin", "GET", "/own", 200, nil},
		{"admin", "GET", "/recorded", 200, nil},
	} {
		status, _, body := do(tc.role, tc.method, tc.path)
		if got := log.take(); status != tc.status || !slices.Equal(got, tc.want) {
			t.Errorf("%s %s by %s = %d %s; recorded %s", tc.method, tc.path, tc.role, status, body, cmp.Diff(tc.want, got))
		}
	}
}

// SEC-107: a read that cannot be recorded shows nothing.
func TestSEC107UnrecordedReadsFail(t *testing.T) {
	t.Parallel()
	log, do := newReads(t)
	log.fault = errors.New("no space left")
	for _, path := range []string{"/list", "/things/7", "/people/" + other} {
		status, header, body := do("admin", "GET", path)
		if status != http.StatusServiceUnavailable || header.Get("Retry-After") == "" || header.Get("ETag") != "" || !strings.Contains(body, `"unavailable"`) || strings.Contains(body, "the data") {
			t.Errorf("GET %s = %d %v %s", path, status, header, body)
		}
		if header.Get("X-Request-Id") == "" || header.Get("X-Content-Type-Options") == "" {
			t.Errorf("GET %s has lost headers: %v", path, header)
		}
	}
}
