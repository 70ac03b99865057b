package web_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/headgate/headgate/pkg/cursor"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/pkg/service"
	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/pkg/web"
)

func TestMain(m *testing.M) { testkit.Main(m) }

type input struct {
	Email string         `json:"email"`
	Age   int            `json:"age"`
	More  map[string]any `json:"more"`
}

func routes() []web.Route {
	echo := func(w http.ResponseWriter, r *http.Request) error {
		in, err := web.Read[input](w, r)
		if err != nil {
			return err
		}
		return web.OK(w, http.StatusOK, in)
	}
	fail := func(err error) web.Handler {
		return func(http.ResponseWriter, *http.Request) error { return err }
	}
	whoami := func(w http.ResponseWriter, r *http.Request) error {
		return web.OK(w, http.StatusOK, map[string]string{
			"user": web.Caller(r).UserID, "ip": event.OriginFrom(r.Context()).IP, "actor": event.OriginFrom(r.Context()).Actor.Type,
		})
	}
	return []web.Route{
		{Method: http.MethodPost, Path: "/echo", Access: web.Anyone, Handler: echo},
		{Method: http.MethodPatch, Path: "/echo", Access: web.Anyone, Handler: echo},
		{Method: http.MethodGet, Path: "/me", Access: web.SignedIn, Query: web.Takes("token"), Handler: whoami},
		{Method: http.MethodGet, Path: "/maybe", Access: web.Anyone.WithCaller(), Handler: func(w http.ResponseWriter, r *http.Request) error {
			caller, _ := token.From(r.Context())
			return web.OK(w, http.StatusOK, caller.UserID)
		}},
		{Method: http.MethodGet, Path: "/list", Access: web.AdminOnly, Query: web.TakesPage("q"), Handler: func(w http.ResponseWriter, r *http.Request) error {
			return web.OK(w, http.StatusOK, web.QueryOf(r))
		}},
		{Method: http.MethodGet, Path: "/admin", Access: web.AdminOnly, Handler: whoami},
		{Method: http.MethodGet, Path: "/audit", Access: web.AuditReaders, Handler: whoami},
		{Method: http.MethodGet, Path: "/nobody", Handler: whoami},
		{Method: http.MethodGet, Path: "/password", Access: web.SignedIn, Handler: fail(problem.New(problem.Unauthenticated, "current_password_invalid", "No."))},
		{Method: http.MethodGet, Path: "/ended", Access: web.SignedIn, Handler: fail(problem.New(problem.Unauthenticated, token.ErrRevoked.Code, "Ended."))},
		{Method: http.MethodGet, Path: "/refresh", Access: web.Anyone, Handler: fail(problem.New(problem.Unauthenticated, token.ErrRevoked.Code, "Ended."))},
		{Method: http.MethodGet, Path: "/conflict", Access: web.Anyone, Handler: fail(problem.New(problem.Conflict, "taken", "Taken."))},
		{Method: http.MethodGet, Path: "/away", Access: web.Anyone, Handler: fail(fmt.Errorf("select: %w", errAway))},
		{Method: http.MethodGet, Path: "/wait", Access: web.Anyone, Handler: fail(problem.ErrUnavailable.WithRetryAfter(1500 * time.Millisecond))},
		{Method: http.MethodGet, Path: "/broken", Access: web.Anyone, Handler: fail(errors.New("password=hunter2 at db-host-7"))},
		{Method: http.MethodGet, Path: "/panic", Access: web.Anyone, Handler: func(http.ResponseWriter, *http.Request) error { panic("secret state") }},
	}
}

var errAway = errors.New("connection refused by db-host-7")

type edge struct {
	*httptest.Server
	logs    *bytes.Buffer
	metrics *prometheus.Registry
	issuer  *testkit.Issuer
}

func newEdge(t *testing.T) *edge {
	t.Helper()
	return newEdgeWith(t, web.Options{})
}

// newEdgeWith is newEdge with the options o, completed by those that every test needs.
func newEdgeWith(t *testing.T, o web.Options) *edge {
	t.Helper()
	e := &edge{logs: &bytes.Buffer{}, metrics: prometheus.NewRegistry(), issuer: testkit.NewIssuer(t)}
	var trusted web.Prefixes
	if err := trusted.UnmarshalText([]byte("127.0.0.1, 10.0.0.0/8")); err != nil {
		t.Fatal(err)
	}
	o.Auth, o.TrustedProxies = e.issuer.Verifier(), trusted
	o.Log, o.Metrics = service.NewLogger(e.logs, "test", service.Common{LogFormat: "json"}), e.metrics
	o.Ready, o.Unavailable = func(context.Context) error { return nil }, func(err error) bool { return errors.Is(err, errAway) }
	e.Server = httptest.NewServer(web.NewRouter(routes(), o))
	t.Cleanup(e.Close)
	return e
}

type answer struct {
	Success   bool            `json:"success"`
	Data      json.RawMessage `json:"data"`
	Code      string          `json:"code"`
	Message   string          `json:"message"`
	RequestID string          `json:"requestId"`
	Errors    []problem.Field `json:"errors"`
	Error     string          `json:"error"`
}

func (e *edge) do(t *testing.T, method, path, body string, header ...string) (*http.Response, answer) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, e.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	var a answer
	if err := json.Unmarshal(data, &a); err != nil && method != http.MethodHead {
		t.Fatalf("%s %s: %v in %s", method, path, err, data)
	}
	return res, a
}

// TestSEC48StrictBodies is SEC-48.
func TestSEC48StrictBodies(t *testing.T) {
	t.Parallel()
	e := newEdge(t)
	deep := strings.Repeat(`{"a":`, 33) + "1" + strings.Repeat("}", 33)
	for name, tc := range map[string]struct {
		body, code, field string
		status            int
		header            []string
	}{
		"good":              {body: `{"email":"a","age":3,"more":{"x":[1]}}`, status: 200},
		"charset":           {body: `{}`, status: 200, header: []string{"Content-Type", "application/json; charset=UTF-8"}},
		"unknown field":     {body: `{"role":"admin"}`, status: 400, code: "validation_failed", field: "role"},
		"wrong case":        {body: `{"Email":"a"}`, status: 400, code: "validation_failed", field: "Email"},
		"duplicate key":     {body: `{"email":"a","email":"b"}`, status: 400, code: "malformed_body", field: "email"},
		"nested duplicate":  {body: `{"more":{"a/b":1,"a/b":2}}`, status: 400, code: "malformed_body", field: "more.a/b"},
		"trailing data":     {body: `{} {}`, status: 400, code: "malformed_body"},
		"wrong type":        {body: `{"age":"3"}`, status: 400, code: "validation_failed", field: "age"},
		"list":              {body: `[]`, status: 400, code: "malformed_body"},
		"null":              {body: `null`, status: 400, code: "malformed_body"},
		"NaN":               {body: `{"age":NaN}`, status: 400, code: "malformed_body"},
		"huge number":       {body: `{"age":1e999}`, status: 400, code: "validation_failed", field: "age"},
		"byte order mark":   {body: "\ufeff{}", status: 400, code: "malformed_body"},
		"invalid UTF-8":     {body: "{\"email\":\"\xff\"}", status: 400, code: "malformed_body"},
		"too deep":          {body: `{"more":` + deep + `}`, status: 400, code: "malformed_body"},
		"too large":         {body: `{"email":"` + strings.Repeat("a", web.MaxBody) + `"}`, status: 413, code: "body_too_large"},
		"nothing at all":    {status: 200},
		"nothing of a type": {status: 400, code: "malformed_body", header: []string{"Content-Type", "application/json"}},
		"no type":           {body: `{}`, status: 415, code: "unsupported_media_type", header: []string{"Content-Type", ""}},
		"form":              {body: `email=a`, status: 415, code: "unsupported_media_type", header: []string{"Content-Type", "application/x-www-form-urlencoded"}},
		"text":              {body: `{}`, status: 415, code: "unsupported_media_type", header: []string{"Content-Type", "text/plain"}},
		"SEC-47 compressed": {body: `{}`, status: 415, code: "unsupported_media_type", header: []string{"Content-Encoding", "gzip"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			res, a := e.do(t, http.MethodPost, "/echo", tc.body, tc.header...)
			if res.StatusCode != tc.status || a.Code != tc.code {
				t.Fatalf("= %d %q, want %d %q", res.StatusCode, a.Code, tc.status, tc.code)
			}
			if tc.field != "" && (len(a.Errors) != 1 || a.Errors[0].Field != tc.field) {
				t.Errorf("errors = %+v, want one for %q", a.Errors, tc.field)
			}
		})
	}
}

func TestAccess(t *testing.T) {
	t.Parallel()
	e := newEdge(t)
	for path, want := range map[string]map[string]int{
		"/me":     {"": 401, "junk": 401, "user": 200, "auditor": 200, "admin": 200},
		"/admin":  {"": 401, "junk": 401, "user": 403, "auditor": 403, "admin": 200},
		"/audit":  {"": 401, "junk": 401, "user": 403, "auditor": 200, "admin": 200},
		"/nobody": {"": 401, "junk": 401, "user": 403, "auditor": 403, "admin": 403},
	} {
		for role, status := range want {
			header := []string{}
			switch role {
			case "":
			case "junk":
				header = []string{"Authorization", "Bearer junk"}
			default:
				header = []string{"Authorization", "Bearer " + e.issuer.Token(token.Identity{Role: role})}
			}
			res, a := e.do(t, http.MethodGet, path, "", header...)
			if res.StatusCode != status || (status == 200) != a.Success {
				t.Errorf("%s as %q = %d %s, want %d", path, role, res.StatusCode, a.Code, status)
			}
			challenge := map[string]string{"": "Bearer", "junk": `Bearer error="invalid_token"`}[role]
			if got := res.Header.Get("WWW-Authenticate"); status == 401 && got != challenge {
				t.Errorf("%s as %q: WWW-Authenticate = %q, want %q", path, role, got, challenge)
			}
		}
	}
}

// A public route that may know its caller ignores every token but a valid one.
func TestSEC85OptionalCaller(t *testing.T) {
	t.Parallel()
	e := newEdge(t)
	raw := e.issuer.Token(token.Identity{UserID: "user-1"})
	for authorization, want := range map[string]string{"": `""`, "Bearer junk": `""`, "Basic YTpi": `""`, "Bearer " + raw: `"user-1"`} {
		header := []string{}
		if authorization != "" {
			header = []string{"Authorization", authorization}
		}
		res, a := e.do(t, http.MethodGet, "/maybe", "", header...)
		if res.StatusCode != http.StatusOK || string(a.Data) != want {
			t.Errorf("with %q = %d %s, want %s", authorization, res.StatusCode, a.Data, want)
		}
	}
}

// TestChallenge: WWW-Authenticate blames the token only if the token is invalid (RFC 6750, 3.1).
func TestChallenge(t *testing.T) {
	t.Parallel()
	e := newEdge(t)
	for path, want := range map[string]string{"/password": "Bearer", "/ended": `Bearer error="invalid_token"`, "/refresh": "Bearer", "/broken": ""} {
		res, a := e.do(t, http.MethodGet, path, "", "Authorization", "Bearer "+e.issuer.Token(token.Identity{}))
		if got := res.Header.Get("WWW-Authenticate"); got != want {
			t.Errorf("%s = %d %s, WWW-Authenticate = %q, want %q", path, res.StatusCode, a.Code, got, want)
		}
	}
}

func TestSEC54And57ErrorsHaveTheEnvelope(t *testing.T) {
	t.Parallel()
	e := newEdge(t)
	for _, tc := range []struct {
		method, path, code, allow, retry string
		status                           int
	}{
		{method: "GET", path: "/conflict", status: 409, code: "taken"},
		{method: "GET", path: "/wait", status: 503, code: "unavailable", retry: "2"},
		{method: "GET", path: "/broken", status: 500, code: "internal_error"},
		{method: "GET", path: "/panic", status: 500, code: "internal_error"},
		{method: "GET", path: "/nothing", status: 404, code: "not_found"},
		{method: "GET", path: "//me", status: 404, code: "not_found"},
		{method: "DELETE", path: "/conflict", status: 405, code: "method_not_allowed", allow: "GET, HEAD"},
		{method: "TRACE", path: "/echo", status: 405, code: "method_not_allowed", allow: "PATCH, POST"},
	} {
		res, a := e.do(t, tc.method, tc.path, "")
		if res.StatusCode != tc.status || a.Code != tc.code || a.Success || a.Message == "" || a.RequestID != res.Header.Get("X-Request-Id") {
			t.Errorf("%s %s = %d %+v, want %d %s", tc.method, tc.path, res.StatusCode, a, tc.status, tc.code)
		}
		if got := res.Header.Get("Content-Type"); got != "application/json; charset=utf-8" {
			t.Errorf("%s: Content-Type = %q", tc.path, got)
		}
		if res.Header.Get("Allow") != tc.allow || res.Header.Get("Retry-After") != tc.retry {
			t.Errorf("%s: Allow, Retry-After = %q, %q", tc.path, res.Header.Get("Allow"), res.Header.Get("Retry-After"))
		}
		if strings.Contains(a.Message+a.Error, "hunter2") || strings.Contains(a.Message+a.Error, "secret") {
			t.Errorf("SEC-57: %s shows its inside: %+v", tc.path, a)
		}
		if res.Header.Get("X-Content-Type-Options") != "nosniff" || res.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("SEC-54: %s: headers %v", tc.path, res.Header)
		}
	}
}

// TestDependencyAway is REL-08: 503 with Retry-After, and no details of the dependency.
func TestDependencyAway(t *testing.T) {
	t.Parallel()
	res, body := newEdge(t).do(t, http.MethodGet, "/away", "")
	if res.StatusCode != http.StatusServiceUnavailable || res.Header.Get("Retry-After") == "" || strings.Contains(fmt.Sprint(body), "db-host-7") {
		t.Errorf("answer = %d %v %+v", res.StatusCode, res.Header, body)
	}
}

func TestProblemDetails(t *testing.T) {
	t.Parallel()
	e := newEdge(t)
	for accept, want := range map[string]string{
		"text/html, application/problem+json;q=0.9": "application/problem+json; charset=utf-8",
		"application/problem+json;q=0":              "application/json; charset=utf-8",
		"application/problem+json; q=0.000, */*":    "application/json; charset=utf-8",
		"application/problem+json;q=x":              "application/json; charset=utf-8",
		"application/json":                          "application/json; charset=utf-8",
	} {
		res, _ := e.do(t, http.MethodGet, "/conflict", "", "Accept", accept)
		if got := res.Header.Get("Content-Type"); got != want {
			t.Errorf("with Accept: %s, Content-Type = %q, want %q", accept, got, want)
		}
	}
}

func TestRequestIDsAreKeptOnlyWhenWellFormed(t *testing.T) {
	t.Parallel()
	e := newEdge(t)
	for id, kept := range map[string]bool{
		"0192-abcdEFGH_1.2": true, "1": true, "Root=1-67891233-abcdef012345678912345678": true, "a:b/c+d==": true, strings.Repeat("a", 128): true,
		strings.Repeat("a", 129): false, "has spaces in it": false, `"},{"level":"x`: false, "tab\there": false, "caf\u00e9": false, "a%0ab": false, "": false,
	} {
		res, _ := e.do(t, http.MethodGet, "/conflict", "", "X-Request-Id", id)
		if got := res.Header.Get("X-Request-Id"); (got == id) != kept || got == "" {
			t.Errorf("X-Request-Id %q became %q", id, got)
		}
	}
}

// TestSEC64And65AccessLog is SEC-64 and SEC-65: one parseable line per request, with ids and
// without secrets.
func TestSEC64And65AccessLog(t *testing.T) {
	t.Parallel()
	e := newEdge(t)
	raw := e.issuer.Token(token.Identity{UserID: "user-1"})
	res, _ := e.do(t, http.MethodGet, "/me?token=geheim", "", "Authorization", "Bearer "+raw, "User-Agent", `"},{"level":"x`, "X-Request-Id", "request-1")
	if res.StatusCode != http.StatusOK {
		t.Fatal(res.Status)
	}
	e.Close() // The line is written after the answer.
	line := map[string]any{}
	if err := json.Unmarshal(e.logs.Bytes(), &line); err != nil {
		t.Fatalf("%v in %s", err, e.logs)
	}
	for key, want := range map[string]any{"msg": "request", "method": "GET", "route": "/me", "status": 200.0, "user_id": "user-1", "request_id": "request-1", "level": slog.LevelInfo.String()} {
		if line[key] != want {
			t.Errorf("%s = %v, want %v", key, line[key], want)
		}
	}
	if line["trace_id"] == nil || strings.Contains(e.logs.String(), "geheim") || strings.Contains(e.logs.String(), raw) {
		t.Errorf("line = %s", e.logs)
	}
}

func TestPages(t *testing.T) {
	t.Parallel()
	for query, want := range map[string]int{"": 50, "limit=1": 1, "limit=200": 200, "limit=0": 0, "limit=201": 0, "limit=x": 0, "cursor=!": 0, "cursor=anVuaw": 0} {
		name, value, _ := strings.Cut(query, "=")
		page, err := web.Query{name: value}.Page()
		if (err == nil) != (want > 0) || err == nil && page.Limit != want {
			t.Errorf("Page of %q = %+v, %v", query, page, err)
		}
	}
	ids := []string{"01890000-0000-7000-8000-00000000000a", "01890000-0000-7000-8000-00000000000b", "01890000-0000-7000-8000-00000000000c"}
	first := httptest.NewRecorder()
	if err := web.SendPage(first, web.Page{Limit: 2}, []string{ids[2], ids[1], ids[0]}, cursor.ByID); err != nil {
		t.Fatal(err)
	}
	var sent struct {
		Data []string
		Meta web.Meta
	}
	if err := json.Unmarshal(first.Body.Bytes(), &sent); err != nil {
		t.Fatal(err)
	}
	next, err := web.Query{"cursor": sent.Meta.NextCursor}.PageByID()
	if err != nil || next.After != cursor.ByID(ids[1]) || !sent.Meta.HasMore || len(sent.Data) != 2 {
		t.Errorf("page = %+v, next = %+v, %v", sent, next, err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"email":"a","age":1,"more":{"b":[null]}}`))
	f.Add([]byte(`{"email":"a","email":"b"}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		if _, err := web.Decode[input](body); err != nil {
			if problem.From(err).Kind != problem.Invalid {
				t.Errorf("Decode = %v, want a problem of the client's", err)
			}
			return
		}
		if !json.Valid(body) {
			t.Errorf("Decode took %q", body)
		}
	})
}
