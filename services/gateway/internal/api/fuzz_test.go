package api

import (
	"bufio"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/mailaddr"
	"github.com/headgate/headgate/pkg/web"
	"github.com/headgate/headgate/services/gateway/internal/ratelimit"
)

func FuzzCanonical(f *testing.F) {
	for _, seed := range []string{"/api/v1/user/me", "/a/../b", "/%2e%2e/", "/a//b", "/a;b", "/a%00"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		u, err := url.ParseRequestURI(raw)
		if err != nil || !canonical(u) {
			return
		}
		if clean := path.Clean(u.Path); clean != u.Path && clean+"/" != u.Path {
			t.Errorf("%q passes and can also be read as %q", raw, clean)
		}
		if u.RawPath != "" && u.RawPath != u.Path || strings.ContainsAny(u.Path, "\\;\x00%?#") {
			t.Errorf("%q passes", raw)
		}
	})
}

func FuzzLimitKeys(f *testing.F) {
	f.Add(`{"email":" A@example.com"}`)
	f.Add(`{"refreshToken":"a.eyJzaWQiOiJzIn0.b"}`)
	f.Add(`{"refreshToken":"..","email":1}`)
	f.Fuzz(func(t *testing.T, body string) {
		email, _ := web.CheckBody([]byte(body), "email")
		// All spellings of an address have one key, which is that of auth-service.
		address, _ := mailaddr.Parse(email)
		if account := accountKey(email); account != address.Key || account != accountKey(" "+account) || len(account) > 254 {
			t.Errorf("the account of %q is %q, want the key %q of auth-service", body, account, address.Key)
		}
		refreshToken, _ := web.CheckBody([]byte(body), "refreshToken")
		_ = sessionOf(refreshToken) // It must end, whatever comes.
		// The gateway forwards every body unchanged.
		r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body))
		if _, err := readBody(r, "email"); err != nil {
			return
		}
		if again, err := io.ReadAll(r.Body); err != nil || string(again) != body {
			t.Errorf("the body %q became %q, %v", body, again, err)
		}
	})
}

// FuzzHeaders: whatever headers a client sends, the service gets the gateway's own on the
// client's origin, and no hop-by-hop header.
func FuzzHeaders(f *testing.F) {
	for _, seed := range []string{
		"Connection: X-Forwarded-For, authorization\r\nX-Forwarded-For: 1.2.3.4", "x_user_id: 1\r\nX-User-Id: 2", "Forwarded: for=1", "TE: trailers, gzip",
		"Connection: close\r\nConnection: keep-alive,,x-a\r\nX-A: b", "Transfer-Encoding: chunked", "X-REQUEST-ID: \tx", "Upgrade: h2c\r\nHTTP2-Settings: x",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, lines string) {
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader("GET / HTTP/1.1\r\nHost: x\r\n" + lines + "\r\n\r\n")))
		if err != nil {
			return
		}
		origin := event.Origin{IP: "192.0.2.1", RequestID: "id", TraceParent: "trace"}
		got := requestEdit(r.WithContext(event.WithOrigin(t.Context(), origin))).Apply(r.Header)
		ours := map[string]string{"X-Forwarded-For": origin.IP, "X-Forwarded-Host": r.Host, "X-Forwarded-Proto": "http", "X-Request-Id": origin.RequestID, "Traceparent": origin.TraceParent}
		for name, value := range ours {
			if !slices.Equal(got[name], []string{value}) {
				t.Errorf("%s: %q, want %q", name, got[name], value)
			}
		}
		for name, values := range got {
			plain := strings.ReplaceAll(strings.ToLower(name), "_", "-")
			switch {
			case ours[name] != "" || name == "X-Forwarded-Host":
			case name == "Te" && slices.Equal(values, []string{"trailers"}):
			case hopByHop[name] || strings.HasPrefix(plain, "x-forwarded-") || strings.HasPrefix(plain, "x-user-") || plain == "forwarded" || plain == "x-request-id":
				t.Errorf("%q passes with %q", name, values)
			}
		}
	})
}

// FuzzResponseHeaders: whatever headers a service sends, the gateway's own survive, and no
// hop-by-hop header passes.
func FuzzResponseHeaders(f *testing.F) {
	for _, seed := range []string{
		"Connection: Content-Security-Policy, x-request-id\r\nConnection: cache-control,,content-type", "Content-Security-Policy:\r\nCache-Control: ", "X-Content-Type-Options: sniff",
		"Trailer: X-Request-Id\r\nUpgrade: h2c", "Vary: a\r\nVary: b", "Connection: vary\r\nVary: *", "Server: x\r\nKeep-Alive: 1",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, lines string) {
		res, err := http.ReadResponse(bufio.NewReader(strings.NewReader("HTTP/1.1 200 OK\r\n"+lines+"\r\n\r\n")), nil)
		if err != nil {
			return
		}
		h := http.Header{"X-Request-Id": {"id"}, "X-Content-Type-Options": {"nosniff"}, "Content-Security-Policy": {"default"}, "Cache-Control": {"no-store"}, "Vary": {"Origin"}}
		copyHeader(h, res)
		for name, want := range map[string]string{"X-Request-Id": "id", "X-Content-Type-Options": "nosniff", "Server": "", "X-Powered-By": ""} {
			if got := strings.Join(h[name], "|"); got != want {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
		for _, name := range []string{"Content-Security-Policy", "Cache-Control", "Vary"} {
			if h.Get(name) == "" {
				t.Errorf("no %s", name)
			}
		}
		if kind := res.Header.Get("Content-Type"); kind != h.Get("Content-Type") {
			t.Errorf("Content-Type: %q, want %q", h.Get("Content-Type"), kind)
		}
		for name := range h {
			if hopByHop[name] {
				t.Errorf("%q passes", name)
			}
		}
	})
}

func FuzzRate(f *testing.F) {
	for _, seed := range []string{"5/15m", "5/15m observe", "off", "0/1m", "1/1ns", "-1/1m", "5/", "5/15m/1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var r ratelimit.Rate
		if r.UnmarshalText([]byte(text)) != nil {
			return
		}
		if !r.Off() && (r.Requests < 1 || r.Window < time.Second) {
			t.Errorf("%q is %+v", text, r)
		}
		var again ratelimit.Rate
		if err := again.UnmarshalText([]byte(r.String())); err != nil || again != r {
			t.Errorf("%q is %+v, but %q is %+v, %v", text, r, r.String(), again, err)
		}
	})
}
