package api_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/outbox"
	"github.com/headgate/headgate/services/auth-service/internal/account"
	"github.com/headgate/headgate/services/auth-service/internal/password"
	"github.com/headgate/headgate/services/auth-service/internal/store"
)

// TestSEC18SessionFixation: nothing that a client brings along names its session;
// each sign-in, and each second factor, makes a new one.
func TestSEC18SessionFixation(t *testing.T) {
	t.Parallel()
	s := newService(t)
	ann := s.signup("ann@example.com").Data.Tokens
	seen := []string{ann.SessionID}
	fixed := s.with("Cookie", "sessionId="+ann.SessionID+"; sid="+ann.SessionID).with("X-Session-Id", ann.SessionID)
	for range 2 {
		in := fixed.want(fixed.try("ann@example.com", goodPassword), 200, "")
		if cookies := in.header.Values("Set-Cookie"); len(cookies) > 0 {
			t.Errorf("cookies = %v", cookies)
		}
		seen = append(seen, in.Data.Tokens.SessionID)
	}
	body := fields{"email": "ann@example.com", "password": goodPassword, "sessionId": ann.SessionID}
	s.want(s.call("POST", "/login", "", body), 400, "validation_failed")
	_, secret, _ := s.enrol(ann.AccessToken)
	s.advance(time.Minute)
	waiting := fixed.try("ann@example.com", goodPassword).Data
	seen = append(seen, fixed.want(fixed.challenge(waiting.MFAToken, s.code(secret)), 200, "").Data.Tokens.SessionID)
	slices.Sort(seen)
	if distinct := slices.Compact(seen); len(distinct) != 4 || distinct[0] == "" {
		t.Errorf("sessions = %v, want 4", distinct)
	}
}

// TestSEC19Sessions: the owner sees where they are signed in, page by page, and
// ends one there; nobody else's.
func TestSEC19Sessions(t *testing.T) {
	t.Parallel()
	s := newService(t)
	phone := s.at("198.51.100.7").with("User-Agent", "Phone/1.0")
	here := s.signup("ann@example.com").Data.Tokens
	s.advance(time.Minute)
	there := phone.call("POST", "/login", "", fields{"email": "ann@example.com", "password": goodPassword, "deviceName": "Ann's phone"}).Data.Tokens
	eve := s.signup("eve@example.com").Data.Tokens

	list := s.want(s.call("GET", "/sessions", here.AccessToken, nil), 200, "").List
	if len(list) != 2 || list[0].ID != there.SessionID || list[0].Current || !list[1].Current ||
		list[0].DeviceName != "Ann's phone" || list[0].UserAgent != "Phone/1.0" || list[0].IP != "198.51.100.7" {
		t.Fatalf("sessions = %+v", list)
	}
	first := s.want(s.call("GET", "/sessions?limit=1", here.AccessToken, nil), 200, "")
	second := s.want(s.call("GET", "/sessions?limit=1&cursor="+first.Meta.NextCursor, here.AccessToken, nil), 200, "")
	if first.List[0].ID != there.SessionID || second.List[0].ID != here.SessionID || second.Meta.NextCursor != "" {
		t.Errorf("pages = %+v, %+v", first.List, second.List)
	}
	s.want(s.call("GET", "/sessions?limit=0", here.AccessToken, nil), 400, "validation_failed")

	s.want(s.call("DELETE", "/sessions/"+eve.SessionID, here.AccessToken, nil), 404, "session_not_found")
	s.want(s.refresh(eve.RefreshToken), 200, "")
	s.want(s.call("DELETE", "/sessions/"+there.SessionID, here.AccessToken, nil), 200, "")
	s.want(s.refresh(there.RefreshToken), 401, "session_revoked")
	s.want(s.call("GET", "/sessions", there.AccessToken, nil), 401, "session_revoked")
	s.want(s.call("DELETE", "/sessions/"+there.SessionID, here.AccessToken, nil), 404, "session_not_found")
}

// TestSEC24HashAtRest: what is stored costs a guess what OWASP asks for.
func TestSEC24HashAtRest(t *testing.T) {
	t.Parallel()
	s := newService(t, func(cfg *account.Config) {
		cfg.Hasher = password.NewHasher(password.Config{Params: password.Standard, Concurrency: 1, Queue: 10})
	})
	s.signup("ann@example.com")
	var hash string
	if err := s.db.QueryRow(t.Context(), `SELECT password_hash FROM accounts`).Scan(&hash); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(hash, "$argon2id$v=19$m=19456,t=2,p=1$") {
		t.Errorf("hash = %s", hash)
	}
}

// TestSEC69Secrets: whatever lets somebody in has 256 bits of chance, or 120 for
// codes that people type, and never comes twice.
func TestSEC69Secrets(t *testing.T) {
	t.Parallel()
	s := newService(t)
	ann := s.signup("ann@example.com").Data.Tokens
	seen := map[string]bool{}
	add := func(secret string, least int) {
		t.Helper()
		if seen[secret] || len(secret) < least {
			t.Errorf("the secret %q comes twice or is too short", secret)
		}
		seen[secret] = true
	}
	const bits256, bits120 = 43, 24 // characters, in base64 and base32
	add(s.link(event.UserVerificationRequested{}, "ann@example.com", 1), bits256)
	for n := range 3 {
		s.forgot("ann@example.com")
		add(s.link(event.UserResetLinkIssued{}, "ann@example.com", n+1), bits256)
		s.advance(2 * time.Hour)
	}
	ann = s.refresh(ann.RefreshToken).Data.Tokens
	s.want(s.call("POST", "/reauthenticate", ann.AccessToken, fields{"password": goodPassword}), 200, "")
	for range 2 {
		id, secret, codes := s.enrol(ann.AccessToken)
		add(secret, 32) // 160 bits (RFC 4226)
		for _, code := range codes {
			add(code, bits120)
		}
		s.want(s.call("DELETE", "/mfa/totp/"+id, ann.AccessToken, fields{"password": goodPassword}), 200, "")
	}
	_, _, codes := s.enrol(ann.AccessToken)
	for _, code := range codes {
		add(code, bits120)
	}
	for range 3 {
		add(s.try("ann@example.com", goodPassword).Data.MFAToken, bits256)
	}
}

// TestSEC80Clocks: a session that was ended by a process whose clock is hours off
// is known to whoever asks next: what is compared between processes is the time
// of Postgres.
func TestSEC80Clocks(t *testing.T) {
	t.Parallel()
	for name, off := range map[string]time.Duration{"late": -5 * time.Hour, "early": 5 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newService(t)
			rows := store.New(s.db, outbox.New("auth-service"), time.Now)
			before, err := rows.Revocations(t.Context(), time.Time{})
			if err != nil {
				t.Fatal(err)
			}
			s.advance(off)
			ann := s.signup("ann@example.com").Data.Tokens
			s.want(s.call("POST", "/logout", ann.AccessToken, nil), http.StatusOK, "")
			after, err := rows.Revocations(t.Context(), before.AsOf)
			if err != nil || len(after.Revocations) != 1 || after.Revocations[0].SessionID != ann.SessionID {
				t.Errorf("Revocations = %+v, %v, want the session", after, err)
			}
		})
	}
}
