package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/pkg/web"
	"github.com/headgate/headgate/services/user-service/internal/api"
	"github.com/headgate/headgate/services/user-service/internal/profile"
)

// others are the services that are asked for exports. Each answers with the token that it got.
type others struct {
	servers map[string]*httptest.Server
	fault   atomic.Value // a func(http.ResponseWriter) of the service email
	secrets chan string  // of the links that were mailed
	refused atomic.Bool  // the address is not verified
}

func (o *others) mail(w http.ResponseWriter, r *http.Request) {
	var link web.ExportLink
	switch err := json.NewDecoder(r.Body).Decode(&link); {
	case err != nil || r.Method != http.MethodPost || time.Until(link.ExpiresAt) < time.Minute:
		w.WriteHeader(http.StatusBadRequest)
	case o.refused.Load():
		w.WriteHeader(http.StatusForbidden)
	default:
		o.secrets <- link.Secret
		w.WriteHeader(http.StatusAccepted)
	}
}

func newOthers(t *testing.T) *others {
	t.Helper()
	o := &others{servers: map[string]*httptest.Server{}, secrets: make(chan string, 10)}
	for _, name := range []string{"auth", "email", "audit"} {
		o.servers[name] = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if fault, ok := o.fault.Load().(func(http.ResponseWriter)); ok && fault != nil && name == "email" {
				fault(w)
				return
			}
			if r.URL.Path == web.ExportLinkPath {
				o.mail(w, r)
				return
			}
			fmt.Fprintf(w, `{"path":%q,"bearer":%q}`, r.URL.RequestURI(), strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
		}))
		t.Cleanup(o.servers[name].Close)
	}
	return o
}

func (o *others) sources() []profile.Source {
	var all []profile.Source
	for _, name := range []string{"auth", "email", "audit"} {
		all = append(all, api.Source(name, o.servers[name].URL+"/.well-known/jwks.json?x=y"))
	}
	return all
}

type exported struct {
	UserID  string
	Profile profile.Profile
	Auth    struct{ Path, Bearer string }
	Email   struct{ Path, Bearer string }
	Audit   struct{ Path, Bearer string }
}

// download gets a path below the prefix as it is: redirects are not followed, and the path is
// not cleaned.
func (s *service) download(path string, header ...string) (*http.Response, []byte) {
	s.t.Helper()
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, s.URL+api.Prefix+path, http.NoBody)
	if err != nil {
		s.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return res, data
}

// export gets the caller's export with an access token.
func (s *service) export(bearer string) (*http.Response, []byte) {
	s.t.Helper()
	return s.download("/me/export", "Authorization", "Bearer "+bearer)
}

func (s *service) wantExport(res *http.Response, data []byte, userID, bearer string) {
	s.t.Helper()
	var got exported
	if err := json.Unmarshal(data, &got); err != nil || res.StatusCode != http.StatusOK {
		s.t.Fatalf("export = %d %s, %v", res.StatusCode, data, err)
	}
	if got.UserID != userID || got.Profile.Bio != "Counts." {
		s.t.Errorf("export = %+v", got)
	}
	for _, part := range []struct{ Path, Bearer string }{got.Auth, got.Email, got.Audit} {
		if part.Path != web.ExportPath || part.Bearer != bearer {
			s.t.Errorf("a service was asked for %q with the token %q", part.Path, part.Bearer)
		}
	}
	for header, want := range map[string]string{
		"Content-Type": "application/json; charset=utf-8", "Content-Disposition": `attachment; filename="export.json"`,
		"Cache-Control": "no-store", "Referrer-Policy": "no-referrer",
	} {
		if got := res.Header.Get(header); got != want {
			s.t.Errorf("%s = %q, want %q", header, got, want)
		}
	}
}

// SEC-70, SEC-159: an export has what every service holds, asked for with the caller's own
// token, and is complete or fails.
func TestSEC159Export(t *testing.T) {
	t.Parallel()
	s, me := newService(t, testkit.RedisURL(t)), newUser()
	s.want(s.do(me, "PATCH", "/me", `{"bio":"Counts."}`), 200)
	bearer := s.issuer.Token(me)
	res, data := s.export(bearer)
	s.wantExport(res, data, me.UserID, bearer)

	for name, fault := range map[string]func(http.ResponseWriter){
		"500": func(w http.ResponseWriter) { w.WriteHeader(http.StatusInternalServerError) },
		"redirect": func(w http.ResponseWriter) {
			w.Header().Set("Location", "http://127.0.0.1:1/")
			w.WriteHeader(http.StatusFound)
		},
		"truncated": func(w http.ResponseWriter) { w.Header().Set("Content-Length", "100"); fmt.Fprint(w, `{"a":`) },
		"aborted":   func(w http.ResponseWriter) { fmt.Fprint(w, `{"a":`); panic(http.ErrAbortHandler) },
	} {
		s.others.fault.Store(fault)
		if res, data := s.export(bearer); res.StatusCode != http.StatusServiceUnavailable || !bytes.Contains(data, []byte(`"export_unavailable"`)) || res.Header.Get("Retry-After") == "" {
			t.Errorf("%s: export = %d %s, want 503", name, res.StatusCode, data)
		}
	}
	s.others.fault.Store(func(w http.ResponseWriter) { w.WriteHeader(http.StatusUnauthorized) })
	if res, data := s.export(bearer); res.StatusCode != http.StatusUnauthorized {
		t.Errorf("export with an ended session = %d %s, want 401", res.StatusCode, data)
	}
	old := me
	old.AuthTime = time.Now().Add(-24 * time.Hour)
	if res, data := s.export(s.issuer.Token(old)); res.StatusCode != http.StatusUnauthorized || !bytes.Contains(data, []byte(`"reauth_required"`)) {
		t.Errorf("export long after the sign-in = %d %s, want 401", res.StatusCode, data)
	}
}

// SEC-159: a mailed export is encrypted with the secret in the link, which leads to it until it
// expires, is replaced, or the account is deleted.
func TestSEC159MailedExport(t *testing.T) {
	t.Parallel()
	s, me := newService(t, testkit.RedisURL(t)), newUser()
	s.want(s.do(me, "PATCH", "/me", `{"bio":"Counts."}`), 200)
	mail := func() string {
		t.Helper()
		s.want(s.do(me, "POST", "/me/export", ""), 202)
		return <-s.others.secrets
	}
	open := func(secret string) (*http.Response, []byte) {
		return s.download("/export?token=" + url.QueryEscape(secret))
	}
	first := mail()
	for range 2 {
		res, data := open(first)
		if res.StatusCode != http.StatusOK || !bytes.Contains(data, []byte("Counts.")) {
			t.Fatalf("mailed export = %d %s", res.StatusCode, data)
		}
	}
	var stored []byte
	if err := s.db.QueryRow(t.Context(), `SELECT data FROM exports`).Scan(&stored); err != nil || bytes.Contains(stored, []byte("\x1f\x8b\x08")) {
		t.Errorf("the export is stored as it is, %v", err)
	}
	second := mail()
	wantGone := func(secret string) {
		t.Helper()
		if res, data := open(secret); res.StatusCode != http.StatusGone || !bytes.Contains(data, []byte(`"export_expired"`)) {
			t.Errorf("export = %d %s, want 410", res.StatusCode, data)
		}
	}
	wantGone(first)
	wantGone("never")
	if _, err := s.db.Exec(t.Context(), `UPDATE exports SET expires_at = now()`); err != nil {
		t.Fatal(err)
	}
	wantGone(second)
	third := mail()
	s.publish(me.UserID, time.Now(), event.UserDeleted{})
	s.wantAcknowledged()
	wantGone(third)
	var left int
	if err := s.db.QueryRow(t.Context(), `SELECT count(*) FROM exports`).Scan(&left); err != nil || left != 0 {
		t.Errorf("%d exports are left after the deletion, %v", left, err)
	}
	s.others.refused.Store(true)
	unproved := newUser()
	if a := s.do(unproved, "POST", "/me/export", ""); a.status != 403 || a.Code != "email_not_verified" {
		t.Errorf("mail to an unproved address = %d %s, want 403", a.status, a.Code)
	}
}
