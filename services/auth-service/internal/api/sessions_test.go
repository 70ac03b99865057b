package api_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/outbox"
	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/services/auth-service/internal/account"
	"github.com/headgate/headgate/services/auth-service/internal/store"
)

// SEC-19: owners list their sessions page by page, and can end their own only.
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

// SEC-80: a revocation by a process whose clock is hours off is in the next snapshot,
// because revocations have the time of Postgres.
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

func TestEndSessions(t *testing.T) {
	t.Parallel()
	s := newService(t)
	first := s.signup("ann@example.com").Data.Tokens
	second, third := s.login("ann@example.com").Data.Tokens, s.login("ann@example.com").Data.Tokens
	stranger := s.signup("eve@example.com").Data.Tokens

	s.want(s.call("DELETE", "/sessions/"+stranger.SessionID, first.AccessToken, nil), 404, "session_not_found")
	s.want(s.call("DELETE", "/sessions/nonsense", first.AccessToken, nil), 404, "session_not_found")
	s.want(s.call("DELETE", "/sessions/"+second.SessionID, first.AccessToken, nil), 200, "")
	s.want(s.call("DELETE", "/sessions/"+second.SessionID, first.AccessToken, nil), 404, "session_not_found")
	s.want(s.refresh(second.RefreshToken), 401, "session_revoked")
	s.want(s.call("GET", "/sessions", second.AccessToken, nil), 401, "session_revoked")
	s.want(s.refresh(stranger.RefreshToken), 200, "")

	if got := s.want(s.call("POST", "/logout-all", first.AccessToken, nil), 200, "").Data.Revoked; got != 2 {
		t.Errorf("revoked %d, want 2", got)
	}
	for _, old := range []tokens{first, third} {
		s.want(s.call("GET", "/sessions", old.AccessToken, nil), 401, "session_revoked")
	}
	root := s.admin()
	ann := s.login("ann@example.com").Data
	if got := s.want(s.call("POST", "/users/"+ann.User.ID+"/revoke-sessions", root.AccessToken, nil), 200, "").Data.Revoked; got != 1 {
		t.Errorf("revoked %d, want 1", got)
	}
	s.want(s.refresh(ann.Tokens.RefreshToken), 401, "session_revoked")
	s.want(s.call("POST", "/users/nobody/revoke-sessions", root.AccessToken, nil), 404, "account_not_found")
}

// SEC-102: an account has a limited number of sessions. A sign-in ends the oldest, and the
// verifiers learn of it.
func TestSEC102SessionsAreLimited(t *testing.T) {
	t.Parallel()
	s := newService(t, limited(account.Limits{Sessions: 3}))
	first := s.signup("ann@example.com").Data.Tokens
	_, secret, _ := s.enrol(first.AccessToken) // A second factor starts sessions in another transaction.
	var last tokens
	for range 3 {
		in := s.login("ann@example.com").Data
		last = s.want(s.challenge(in.MFAToken, s.code(secret)), 200, "").Data.Tokens
		s.advance(30 * time.Second)
	}
	s.want(s.refresh(first.RefreshToken), 401, "session_revoked")
	if list := s.call("GET", "/sessions", last.AccessToken, nil).List; len(list) != 3 {
		t.Errorf("%d sessions, want 3", len(list))
	}
	if n := s.count(event.User, event.SessionRevoked{}); n != 1 {
		t.Errorf("%d sessions were revoked, want 1", n)
	}
	bob := s.signup("bob@example.com").Data.Tokens
	for range 3 {
		s.login("bob@example.com")
	}
	s.want(s.refresh(bob.RefreshToken), 401, "session_revoked")
	s.want(s.refresh(last.RefreshToken), 200, "")
	if n := s.count(event.User, event.SessionRevoked{}); n != 2 {
		t.Errorf("%d sessions were revoked, want 2", n)
	}
}

// SEC-103: an administrator ends all sessions at once, the own one included, and new ones
// begin.
func TestSEC103RevokeAllSessions(t *testing.T) {
	t.Parallel()
	s := newService(t)
	root, ann := s.admin(), s.signup("ann@example.com").Data.Tokens
	other := s.instance()
	s.want(s.call("POST", "/revoke-all-sessions", ann.AccessToken, nil), 403, "forbidden")
	s.want(s.call("POST", "/revoke-all-sessions", root.AccessToken, fields{"before": s.time().Add(time.Minute)}), 400, "validation_failed")
	s.want(s.call("POST", "/revoke-all-sessions", root.AccessToken, fields{"before": nil}), 400, "validation_failed")
	s.want(s.call("POST", "/revoke-all-sessions", root.AccessToken, fields{"before": s.time().Add(-time.Hour)}), 200, "")
	s.want(s.call("GET", "/sessions", ann.AccessToken, nil), 200, "")
	s.want(s.call("POST", "/revoke-all-sessions", root.AccessToken, nil), 200, "")
	for _, bearer := range []string{ann.AccessToken, root.AccessToken} {
		s.want(s.call("GET", "/sessions", bearer, nil), 401, "session_revoked")
	}
	s.want(other.refresh(ann.RefreshToken), 401, "session_revoked")
	testkit.Eventually(t, func() error { // the snapshot of another process
		if got := other.call("GET", "/sessions", ann.AccessToken, nil); got.status != 401 {
			return fmt.Errorf("GET /sessions = %d, want 401", got.status)
		}
		return nil
	})
	s.advance(time.Second)
	in := s.login("ann@example.com").Data.Tokens
	if list := other.want(other.call("GET", "/sessions", in.AccessToken, nil), 200, "").List; len(list) != 1 {
		t.Errorf("%d sessions, want the new one only", len(list))
	}
	s.want(other.refresh(in.RefreshToken), 200, "")
	if n := s.count(event.User, event.SessionsAllRevoked{}); n != 2 {
		t.Errorf("%d events, want one for each request", n)
	}
}

// SEC-103: a time in the past ends a session that began before, also if it was refreshed and
// re-authenticated since: its access tokens are refused at once.
func TestSEC103ReauthenticationKeepsNoSession(t *testing.T) {
	t.Parallel()
	s := newService(t)
	root := s.admin()
	old := s.signup("ann@example.com").Data.Tokens
	s.advance(time.Minute)
	before := s.time()
	s.advance(time.Minute)
	s.prove(old.AccessToken, fields{"password": goodPassword})
	refreshed := s.want(s.refresh(old.RefreshToken), 200, "").Data.Tokens
	young := s.login("ann@example.com").Data.Tokens
	s.want(s.call("POST", "/revoke-all-sessions", root.AccessToken, fields{"before": before}), 200, "")
	for _, bearer := range []string{old.AccessToken, refreshed.AccessToken} {
		s.want(s.call("GET", "/sessions", bearer, nil), 401, "session_revoked")
	}
	s.want(s.refresh(refreshed.RefreshToken), 401, "session_revoked")
	if list := s.want(s.call("GET", "/sessions", young.AccessToken, nil), 200, "").List; len(list) != 1 {
		t.Errorf("%d sessions, want the younger one", len(list))
	}
}
