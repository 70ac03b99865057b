package api

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/services/gateway/internal/limit"
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
		if account := loginAccount([]byte(body)); account != strings.ToLower(account) {
			t.Errorf("the account of %q is %q: another spelling would be counted apart", body, account)
		}
		_ = refreshSession([]byte(body)) // It must end, whatever comes.
		// Whatever a body says, it is put back as it was.
		r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body))
		if _, err := buffered(r); err != nil {
			return
		}
		if again, err := io.ReadAll(r.Body); err != nil || string(again) != body {
			t.Errorf("the body %q became %q, %v", body, again, err)
		}
	})
}

func FuzzRate(f *testing.F) {
	for _, seed := range []string{"5/15m", "5/15m observe", "off", "0/1m", "1/1ns", "-1/1m", "5/", "5/15m/1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var r limit.Rate
		if r.UnmarshalText([]byte(text)) != nil {
			return
		}
		if !r.Off() && (r.Requests < 1 || r.Window < time.Second) {
			t.Errorf("%q is %+v", text, r)
		}
		var again limit.Rate
		if err := again.UnmarshalText([]byte(r.String())); err != nil || again != r {
			t.Errorf("%q is %+v, but %q is %+v, %v", text, r, r.String(), again, err)
		}
	})
}
